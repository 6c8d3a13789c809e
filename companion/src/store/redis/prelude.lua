-- Shared by every script here; ARGV[1] to ARGV[4] are the same in all of them:
--   1  what every key begins with: "{prefix}:"
--   2  the replica that asks
--   3  a nonce of this call
--   4  how many events are kept
-- and LATE, how many milliseconds late the server forgets by itself, for clocks that differ.
local P = ARGV[1]

local function session_key(id) return P .. 's:' .. id end
local function user_key(user) return P .. 'u:' .. user end
local function group_key(group) return P .. 'g:' .. group end
local function groups_key(id) return P .. 'm:' .. id end
local function worker_key(worker) return P .. 'w:' .. worker end

-- Records of earlier companions name neither.
local function is(found, number) return (found or '0000000000000000') == number end

-- An event under the next revision; `...` are its fields and their values.
local function publish(...)
  local revision = string.format('%d-0', redis.call('INCR', P .. 'revision'))
  redis.call('XADD', P .. 'events', 'MAXLEN', '~', ARGV[4], revision,
    'by', ARGV[2], 'nonce', ARGV[3], ...)
end

local function ended(id, proxy, reason, code)
  publish('kind', 'ended', 'session', id, 'proxy', proxy, 'reason', reason, 'code', code)
end

-- What a session is, in this order; `happened`, `take` and the like expect it so.
local function look(id)
  return redis.call('HMGET', session_key(id), 'record', 'hold', 'worker', 'proxy', 'peer', 'client',
    'away', 'user', 'expires', 'seed')
end

-- An event of the history, of a session as it was looked up; `...` are more fields and their values.
local function happened(what, id, found, ...)
  if not found[1] then return end
  local revision = redis.call('INCR', P .. 'log-revision')
  local now = redis.call('TIME')
  redis.call('XADD', P .. 'log', 'MAXLEN', '~', '16384', string.format('%d-0', revision),
    'what', what, 'session', id, 'record', found[1], 'hold', found[2] or '',
    'worker', found[3] or '', 'proxy', found[4] or '', 'peer', found[5] or '',
    'client', found[6] or '', 'away', found[7] or '',
    'at', string.format('%d', now[1] * 1000 + math.floor(now[2] / 1000)), ...)
  redis.call('PUBLISH', P .. 'log', revision)
end

local function happened_end(id, found, cause, reason, code)
  happened('end', id, found, 'cause', cause, 'reason', reason, 'code', code)
end

-- Ends a session's memberships.
local function leave_all(id)
  for _, group in ipairs(redis.call('ZRANGE', groups_key(id), 0, -1)) do
    redis.call('ZREM', group_key(group), id)
  end
  redis.call('DEL', groups_key(id))
end

-- Takes a session out of every index; its record may be gone already.
local function forget(id, user, worker)
  redis.call('DEL', session_key(id), P .. 'q:' .. id)
  leave_all(id)
  redis.call('ZREM', P .. 'sessions', id)
  redis.call('ZREM', P .. 'away', id)
  redis.call('ZREM', user_key(user), id)
  redis.call('ZREM', P .. 'expiry', id .. user)
  if worker then redis.call('ZREM', worker_key(worker), id) end
end

-- When a session ends if nothing happens to it; `time` is in milliseconds, as text.
local function due(id, user, time)
  redis.call('ZADD', P .. 'expiry', time, id .. user)
  redis.call('PEXPIREAT', session_key(id), string.format('%d', tonumber(time) + LATE))
end

-- A worker whose time is not known is lost at this one, unless it is ''.
local function mind(worker, lost_at)
  if lost_at ~= '' then redis.call('ZADD', P .. 'workers', 'NX', lost_at, worker) end
end

-- These two take a session as it was looked up, and leave it as it is now.
local function go_away(id, found, away)
  redis.call('HSET', session_key(id), 'away', away)
  redis.call('ZADD', P .. 'away', 0, id)
  if found[3] then redis.call('ZREM', worker_key(found[3]), id) end
  local expires = found[9]
  due(id, found[8], tonumber(away) < tonumber(expires) and away or expires)
  found[7] = away
  happened('away', id, found)
end

local function come_back(id, found)
  redis.call('HDEL', session_key(id), 'away')
  redis.call('ZREM', P .. 'away', id)
  redis.call('ZADD', worker_key(found[3]), 0, id)
  due(id, found[8], found[9])
  if not found[7] then return end
  found[7] = false
  happened('back', id, found)
end

-- Ends a session, if there is one; appends its id and what it was to an answer, '' for what is not
-- there. Answers what was looked up.
local function take(id, answer)
  local found = look(id)
  if not found[1] then return nil end
  forget(id, found[8], found[3])
  answer[#answer + 1] = id
  for n = 1, 7 do answer[#answer + 1] = found[n] or '' end
  return found
end
