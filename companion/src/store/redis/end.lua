-- Ends sessions.
--   5  '1' if anybody is to hear of it
--   6  the reason, 7 the code that they hear
--   8… their ids
-- Answers {id, record, …} of those that there were.
local answer = {}
for n = 8, #ARGV do
  local id = ARGV[n]
  local proxy, record = take(id)
  if record then
    if ARGV[5] == '1' then
      ended(id, proxy, ARGV[6], ARGV[7])
      happened_end(id, record, 'kicked', ARGV[6], ARGV[7])
    else
      happened_end(id, record, 'closed', '', '0')
    end
    answer[#answer + 1] = id
    answer[#answer + 1] = record
  end
end
return answer
