-- Workers are attached.
--   5  when they are lost unless they are by then (ms)
--   6… the workers
-- Answers those that were not known.
local unknown = {}
for n = 6, #ARGV do
  local worker = ARGV[n]
  if redis.call('ZADD', P .. 'workers', ARGV[5], worker) == 1 then unknown[#unknown + 1] = worker end
end
return unknown
