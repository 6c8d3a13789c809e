-- Takes out what expired.
--   5  now (ms)
--   6  at most so many
--   7  the reason that they hear
-- Answers their ids.
local answer = {}
local due = redis.call('ZRANGE', P .. 'expiry', '-inf', ARGV[5], 'BYSCORE', 'LIMIT', 0, ARGV[6])
for _, entry in ipairs(due) do
  local id, user = string.sub(entry, 1, 32), string.sub(entry, 33)
  local proxy, record = unpack(redis.call('HMGET', session_key(id), 'proxy', 'record'))
  forget(id, user)
  ended(id, proxy or '', ARGV[7], '0')
  happened_end(id, record, 'expired', ARGV[7], '0')
  answer[#answer + 1] = id
end
return answer
