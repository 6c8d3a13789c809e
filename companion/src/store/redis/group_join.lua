-- A session joins a group.
--   5  the session, 6 the group
--   7  how many members it may have, 8 in how many groups a session may be
-- Answers 'yes', 'already', 'none' (no such session), 'full' or 'many'.
local id, group = ARGV[5], ARGV[6]
if redis.call('EXISTS', session_key(id)) == 0 then return 'none' end
if redis.call('ZSCORE', group_key(group), id) then return 'already' end
if redis.call('ZCARD', group_key(group)) >= tonumber(ARGV[7]) then return 'full' end
if redis.call('ZCARD', groups_key(id)) >= tonumber(ARGV[8]) then return 'many' end
redis.call('ZADD', group_key(group), 0, id)
redis.call('ZADD', groups_key(id), 0, group)
return 'yes'
