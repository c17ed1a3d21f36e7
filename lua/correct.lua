#!lua
-- correct: set an account to the level of its last posting, if nobody changed it in between.
--
-- KEYS  1 epoch (hash)   2 account
-- ARGV  1 epoch that the caller compared under   2 the value that it read ("" = missing)
--       3 the value to set
-- RETURNS  1 set, 0 the account has moved on (nothing is changed), -1 another epoch

if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return -1 end
if (redis.call('GET', KEYS[2]) or '') ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[2], ARGV[3])
return 1
