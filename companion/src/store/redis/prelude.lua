-- Shared by every script here; ARGV[1] to ARGV[4] are the same in all of them:
--   1  what every key begins with: "{prefix}:"
--   2  the replica that asks
--   3  a nonce of this call
--   4  how many events are kept
local P = ARGV[1]

local function session_key(id) return P .. 's:' .. id end
local function user_key(user) return P .. 'u:' .. user end
local function group_key(group) return P .. 'g:' .. group end
local function groups_key(id) return P .. 'm:' .. id end

-- An event under the next revision; `...` are its fields and their values.
local function publish(...)
  local revision = string.format('%d-0', redis.call('INCR', P .. 'revision'))
  redis.call('XADD', P .. 'events', 'MAXLEN', '~', ARGV[4], revision,
    'by', ARGV[2], 'nonce', ARGV[3], ...)
end

local function ended(id, proxy, reason, code)
  publish('kind', 'ended', 'session', id, 'proxy', proxy, 'reason', reason, 'code', code)
end

-- An event of the history; `...` are more fields and their values.
local function happened(what, id, record, ...)
  if not record then return end
  local revision = redis.call('INCR', P .. 'log-revision')
  local now = redis.call('TIME')
  redis.call('XADD', P .. 'log', 'MAXLEN', '~', '16384', string.format('%d-0', revision),
    'what', what, 'session', id, 'record', record,
    'at', string.format('%d', now[1] * 1000 + math.floor(now[2] / 1000)), ...)
  redis.call('PUBLISH', P .. 'log', revision)
end

local function happened_end(id, record, cause, reason, code)
  happened('end', id, record, 'cause', cause, 'reason', reason, 'code', code)
end

-- Ends a session's memberships.
local function leave_all(id)
  for _, group in ipairs(redis.call('ZRANGE', groups_key(id), 0, -1)) do
    redis.call('ZREM', group_key(group), id)
  end
  redis.call('DEL', groups_key(id))
end

-- Takes a session out of every index; its record may be gone already.
local function forget(id, user)
  redis.call('DEL', session_key(id))
  leave_all(id)
  redis.call('ZREM', P .. 'sessions', id)
  redis.call('ZREM', user_key(user), id)
  redis.call('ZREM', P .. 'expiry', id .. user)
end

-- Ends a session; its proxy and record, or nothing.
local function take(id)
  local found = redis.call('HMGET', session_key(id), 'user', 'proxy', 'record')
  if not found[3] then return nil end
  forget(id, found[1])
  return found[2], found[3]
end
