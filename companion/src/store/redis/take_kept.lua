-- Takes out what waits for sessions.
--   5… the sessions
-- Answers a list for each, oldest first.
local answer = {}
for n = 5, #ARGV do
  local queue = P .. 'q:' .. ARGV[n]
  answer[#answer + 1] = redis.call('LRANGE', queue, 0, -1)
  redis.call('DEL', queue)
end
return answer
