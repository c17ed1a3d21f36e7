#!lua
-- unclaim: remove the claim of an Idempotency-Key for another shard, if it is still that.
--
-- KEYS  1 the key's record
-- ARGV  1 the claim that the caller read
-- RETURNS  1 removed, 0 it is something else by now (nothing is changed)

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
