-- A worker still has these connections.
--   5  the worker
--   6… session and hold, in turn
-- Answers 1 for each that counts, 0 for each that does not.
local answer = {}
for n = 6, #ARGV, 2 do
  local id = ARGV[n]
  local found = look(id)
  local counts = found[1] and is(found[2], ARGV[n + 1]) and is(found[3], ARGV[5])
  if counts and found[7] then come_back(id, found) end
  answer[#answer + 1] = counts and 1 or 0
end
return answer
