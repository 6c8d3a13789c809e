-- Makes a new store, writes something to see whether writes work, and looks an event up.
--   5  the format's version
--   6  a revision; 0 for the newest
-- Answers the version, and unless it is another one: the revision and its event's nonce, which
-- is '' if the event is not there.
local version = redis.call('GET', P .. 'version')
if not version then
  redis.call('SET', P .. 'version', ARGV[5])
elseif version ~= ARGV[5] then
  return { version }
end
-- 16 hexadecimal digits that no other store has.
redis.call('SET', P .. 'epoch', ARGV[3], 'NX')
redis.call('SET', P .. 'written', ARGV[2], 'PX', '60000')
-- There is always one, so that whoever follows has one to recognise the store by.
if redis.call('EXISTS', P .. 'events') == 0 then publish('kind', 'begun') end
local revision = ARGV[6]
if revision == '0' then revision = redis.call('GET', P .. 'revision') end
local found = redis.call('XRANGE', P .. 'events', revision .. '-0', revision .. '-0')[1]
return { ARGV[5], revision, found and found[2][4] or '' }
