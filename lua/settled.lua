#!lua
-- settled: notes how far MySQL has settled, and drops journal frames that nobody needs any more.
--
-- KEYS  1 epoch (hash)   2 journal (stream)
-- ARGV  1 epoch under which the caller settled   2 number of the last settled entry
--       3 lowest frame to keep, as "ms-low", or "" to keep all
-- RETURNS  the number of frames dropped; -1 another epoch (nothing is changed)

if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return -1 end
if tonumber(ARGV[2]) > tonumber(redis.call('HGET', KEYS[1], 'settled') or '0') then
  redis.call('HSET', KEYS[1], 'settled', ARGV[2])
end
if ARGV[3] == '' then return 0 end
return redis.call('XTRIM', KEYS[2], 'MINID', '=', ARGV[3])
