-- Takes out what ended, and finds sessions of lost workers.
--   5  now (ms)
--   6  at most so many of each
--   7  the reason that those hear whose lifetime is over
--   8  the reason that those hear that were away for too long
--   9  '' if workers are not looked at; or until when the sessions of lost ones are away (ms)
-- Answers {'expired' or 'given_up' or 'lost', id, …}, and 'more' at the end if there is more.
local answer = {}
local function say(what, id)
  answer[#answer + 1] = what
  answer[#answer + 1] = id
end

local now, limit = tonumber(ARGV[5]), tonumber(ARGV[6])

local function give_up(id, user, found)
  forget(id, user, found[3])
  ended(id, found[4] or '', ARGV[8], '0')
  happened_end(id, found, 'given_up', ARGV[8], '0')
  say('given_up', id)
end

local entries = redis.call('ZRANGE', P .. 'expiry', '-inf', ARGV[5], 'BYSCORE', 'LIMIT', 0, limit)
local more = #entries >= limit
for _, entry in ipairs(entries) do
  local id, user = string.sub(entry, 1, 32), string.sub(entry, 33)
  local found = look(id)
  if found[7] and tonumber(found[9]) > now then
    give_up(id, user, found)
  else
    forget(id, user, found[3])
    ended(id, found[4] or '', ARGV[7], '0')
    happened_end(id, found, 'expired', ARGV[7], '0')
    say('expired', id)
  end
end

local lost = ARGV[9] ~= '' and
  redis.call('ZRANGE', P .. 'workers', '-inf', ARGV[5], 'BYSCORE', 'LIMIT', 0, 1)[1]
if lost then
  local ids = redis.call('ZRANGE', worker_key(lost), 0, limit - 1)
  for _, id in ipairs(ids) do
    redis.call('ZREM', worker_key(lost), id)
    local found = look(id)
    if found[1] and tonumber(ARGV[9]) > now then
      go_away(id, found, ARGV[9])
      say('lost', id)
    elseif found[1] then
      give_up(id, found[8], found)
    end
  end
  if #ids < limit then redis.call('ZREM', P .. 'workers', lost) end
  -- Perhaps another worker.
  more = true
end
if more then answer[#answer + 1] = 'more' end
return answer
