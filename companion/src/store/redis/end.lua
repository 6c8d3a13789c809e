-- Ends sessions.
--   5  '1' if anybody is to hear of it
--   6  the reason, 7 the code that they hear
--   8… their ids
-- Answers those that there were, as `take` does.
local answer = {}
for n = 8, #ARGV do
  local id = ARGV[n]
  local found = take(id, answer)
  if found and ARGV[5] == '1' then
    ended(id, found[4] or '', ARGV[6], ARGV[7])
    happened_end(id, found, 'kicked', ARGV[6], ARGV[7])
  elseif found then
    happened_end(id, found, 'closed', '', '0')
  end
end
return answer
