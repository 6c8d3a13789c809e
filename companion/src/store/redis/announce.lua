-- Asks every replica to end what waits there for its first frame.
--   5  whom, as JSON
--   6  the reason, 7 the code that they hear
publish('kind', 'call', 'whom', ARGV[5], 'reason', ARGV[6], 'code', ARGV[7])
return 0
