#!lua
-- relayout: take something away from a shard. What was routed by an earlier layout is refused from here on.
--
-- KEYS  1 epoch (hash)
-- ARGV  1 epoch that the caller works under   2 the version of the layout, which only rises
-- RETURNS  the number of the last entry that was accepted before, or -1 when the epoch is another one

if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return -1 end
if tonumber(redis.call('HGET', KEYS[1], 'layout') or 0) < tonumber(ARGV[2]) then
  redis.call('HSET', KEYS[1], 'layout', ARGV[2])
end
return tonumber(redis.call('HGET', KEYS[1], 'number'))
