#!lua
-- settled: note how far MySQL has followed, and drop journal frames that nobody needs any more.
--
-- KEYS  1 epoch (hash)   2 journal (stream)
-- ARGV  1 epoch that the caller settled under   2 number of the last settled entry
--       3 the lowest frame to keep as "ms-low", or "" to keep all
-- RETURNS  frames dropped, or -1 when the epoch is another one (nothing is changed)

if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return -1 end
if tonumber(ARGV[2]) > tonumber(redis.call('HGET', KEYS[1], 'settled') or '0') then
  redis.call('HSET', KEYS[1], 'settled', ARGV[2])
end
if ARGV[3] == '' then return 0 end
return redis.call('XTRIM', KEYS[2], 'MINID', '=', ARGV[3])
