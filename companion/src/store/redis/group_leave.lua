-- A session leaves a group.
--   5  the session, 6 the group
-- Answers 1 if it was a member.
redis.call('ZREM', groups_key(ARGV[5]), ARGV[6])
return redis.call('ZREM', group_key(ARGV[6]), ARGV[5])
