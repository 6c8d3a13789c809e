-- One admission.
--   5  now (ms)
--   6  the credential's id, or ''
--   7  when its key expires (ms)
--   8  the bound: '', 'refuse' or 'end'
--   9  its user
--   10 'refuse': how many sessions are too many
--   11 'end': the reason, 12 the code that the ended ones hear
--   13 the session's id, or ''
--   14 its user, 15 its proxy, 16 its expiry (ms)
--   17 when its key expires at the latest (ms)
--   18 its record
-- Answers {'used'}, {'many'}, or {'yes', id, record, …} with the sessions that it ended.
local credential = P .. 'c:' .. ARGV[6]
if ARGV[6] ~= '' and redis.call('EXISTS', credential) == 1 then return { 'used' } end

local others = {}
if ARGV[8] ~= '' then
  local now, many = tonumber(ARGV[5]), tonumber(ARGV[10])
  local key = user_key(ARGV[9])
  if ARGV[8] == 'end' or redis.call('ZCARD', key) >= many then
    for _, id in ipairs(redis.call('ZRANGE', key, 0, -1)) do
      local expires = redis.call('HGET', session_key(id), 'expires')
      if expires and tonumber(expires) > now then others[#others + 1] = id end
      if ARGV[8] == 'refuse' and #others >= many then return { 'many' } end
    end
  end
end

if ARGV[6] ~= '' then redis.call('SET', credential, '1', 'PXAT', ARGV[7]) end
local answer = { 'yes' }
local id, user = ARGV[13], ARGV[14]
if id == '' then return answer end
if ARGV[8] == 'end' then
  for _, other in ipairs(others) do
    local proxy, record = take(other)
    if record then
      ended(other, proxy, ARGV[11], ARGV[12])
      happened_end(other, record, 'replaced', ARGV[11], ARGV[12])
      answer[#answer + 1] = other
      answer[#answer + 1] = record
    end
  end
end
redis.call('HSET', session_key(id),
  'user', user, 'proxy', ARGV[15], 'expires', ARGV[16], 'record', ARGV[18])
redis.call('PEXPIREAT', session_key(id), ARGV[17])
redis.call('ZADD', P .. 'sessions', 0, id)
redis.call('ZADD', user_key(user), 0, id)
redis.call('ZADD', P .. 'expiry', ARGV[16], id .. user)
happened('login', id, ARGV[18])
return answer
