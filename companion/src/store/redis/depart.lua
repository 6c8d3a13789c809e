-- Connections are gone.
--   5  until when their sessions are away (ms), or '': they end
--   6… session and hold, in turn
-- Answers {id, 'away' or 'ended', …} of those whose hold counted.
local answer = {}
for n = 6, #ARGV, 2 do
  local id = ARGV[n]
  local found = look(id)
  if found[1] and is(found[2], ARGV[n + 1]) and not found[7] then
    answer[#answer + 1] = id
    if ARGV[5] ~= '' and found[10] then
      go_away(id, found, ARGV[5])
      answer[#answer + 1] = 'away'
    else
      forget(id, found[8], found[3])
      happened_end(id, found, 'closed', '', '0')
      answer[#answer + 1] = 'ended'
    end
  end
end
return answer
