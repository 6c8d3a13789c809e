-- One admission.
--   5  now (ms)
--   6  the credential's id, or ''
--   7  when its key expires (ms)
--   8  the bound: '', 'refuse' or 'end'
--   9  its user
--   10 'refuse': how many sessions are too many
--   11 the reason, 12 the code that the ended ones hear
--   13 the session's id, or ''
--   14 its user, 15 its proxy, 16 its expiry (ms)
--   17 'refuse': '1' if those that are away count as well
--   18 its record
--   19 its hold, 20 its worker, 21 its peer, 22 its client, 23 '1' if it can be resumed
--   24 when its worker is lost if nothing else is known of that (ms), or ''
-- Answers {'used'}, {'many'}, or {'yes', …} with the sessions that it ended, as `take` does.
local credential = P .. 'c:' .. ARGV[6]
if ARGV[6] ~= '' and redis.call('EXISTS', credential) == 1 then return { 'used' } end

-- Those that end if there is a session, and of them those that are away.
local others, away = {}, {}
if ARGV[8] ~= '' then
  local now, many, live = tonumber(ARGV[5]), tonumber(ARGV[10]), 0
  for _, id in ipairs(redis.call('ZRANGE', user_key(ARGV[9]), 0, -1)) do
    local expires, until_ = unpack(redis.call('HMGET', session_key(id), 'expires', 'away'))
    if expires and tonumber(expires) > now and (not until_ or tonumber(until_) > now) then
      others[#others + 1] = id
      if until_ then away[#away + 1] = id end
      if not until_ or ARGV[17] == '1' then live = live + 1 end
    end
    if ARGV[8] == 'refuse' and live >= many then return { 'many' } end
  end
  if ARGV[8] == 'refuse' then
    local too_many = #others + 1 - many
    others = {}
    for n = 1, math.min(too_many, #away) do others[n] = away[n] end
  end
end

if ARGV[6] ~= '' then redis.call('SET', credential, '1', 'PXAT', ARGV[7]) end
local answer = { 'yes' }
local id, user, worker = ARGV[13], ARGV[14], ARGV[20]
if id == '' then return answer end
for _, other in ipairs(others) do
  local found = take(other, answer)
  if found then
    ended(other, found[4] or '', ARGV[11], ARGV[12])
    happened_end(other, found, 'replaced', ARGV[11], ARGV[12])
  end
end
redis.call('HSET', session_key(id), 'user', user, 'proxy', ARGV[15], 'expires', ARGV[16],
  'record', ARGV[18], 'hold', ARGV[19], 'worker', worker, 'peer', ARGV[21], 'client', ARGV[22])
if ARGV[23] == '1' then redis.call('HSET', session_key(id), 'seed', '1') end
redis.call('ZADD', P .. 'sessions', 0, id)
redis.call('ZADD', user_key(user), 0, id)
redis.call('ZADD', worker_key(worker), 0, id)
mind(worker, ARGV[24])
due(id, user, ARGV[16])
happened('login', id, look(id))
return answer
