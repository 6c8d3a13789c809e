-- Gives a session to another connection.
--   5  its id
--   6  the hold that has to count still
--   7  now (ms)
--   8  the new hold, 9 its worker, 10 its proxy, 11 its peer, 12 its client
--   13 when its worker is lost if nothing else is known of that (ms), or ''
-- Answers 1, or 0 if it was too late.
local id, now = ARGV[5], tonumber(ARGV[7])
local found = look(id)
if not found[1] or not is(found[2], ARGV[6]) then return 0 end
if tonumber(found[9]) <= now or (found[7] and tonumber(found[7]) <= now) then return 0 end
if found[3] then redis.call('ZREM', worker_key(found[3]), id) end
redis.call('HSET', session_key(id), 'hold', ARGV[8], 'worker', ARGV[9],
  'proxy', ARGV[10], 'peer', ARGV[11], 'client', ARGV[12])
for n = 2, 6 do found[n] = ARGV[n + 6] end
come_back(id, found)
mind(ARGV[9], ARGV[13])
publish('kind', 'moved', 'session', id, 'hold', ARGV[8])
return 1
