-- Keeps a push for sessions that are away.
--   5  now (ms)
--   6  how old what waits may be (ms)
--   7  at most so many, 8 and so many bytes, for each
--   9  the push, as 16 hexadecimal digits of when it is kept, and its record
--   10… the sessions
-- Answers for each: 'queued', 'full', or 'elsewhere' if it is not away.
local now, oldest = tonumber(ARGV[5]), string.format('%016x', ARGV[5] - ARGV[6])
local answer = {}
for n = 10, #ARGV do
  local id = ARGV[n]
  local queue = P .. 'q:' .. id
  local until_ = redis.call('HGET', session_key(id), 'away')
  if not until_ or tonumber(until_) <= now then
    answer[#answer + 1] = 'elsewhere'
  else
    local bytes, pushes = #ARGV[9], 0
    for _, entry in ipairs(redis.call('LRANGE', queue, 0, -1)) do
      if pushes == 0 and string.sub(entry, 1, 16) <= oldest then
        redis.call('LPOP', queue)
      else
        bytes, pushes = bytes + #entry, pushes + 1
      end
    end
    if pushes >= tonumber(ARGV[7]) or bytes > tonumber(ARGV[8]) then
      answer[#answer + 1] = 'full'
    else
      redis.call('RPUSH', queue, ARGV[9])
      redis.call('PEXPIREAT', queue, string.format('%d', now + ARGV[6] + LATE))
      answer[#answer + 1] = 'queued'
    end
  end
end
return answer
