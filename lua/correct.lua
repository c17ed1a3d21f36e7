#!lua
-- correct: sets an account to the level of its last posting, unless the account has changed
-- meanwhile.
--
-- KEYS  1 epoch (hash)   2 the account's own key, or its book
-- ARGV  1 epoch under which the caller compared
--       2 the account's field in its book, or "" for a key of its own
--       3 value that was read ("" = missing, or a key of another type)   4 value to set
-- RETURNS  1 set; 0 the value has changed, or the book was lost (nothing is changed); -1 another
--          epoch

if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return -1 end
if ARGV[2] ~= '' then
  local found = redis.pcall('HMGET', KEYS[2], '.', ARGV[2])
  if found.err or found[1] ~= ARGV[1] or (found[2] or '') ~= ARGV[3] then return 0 end
  redis.call('HSET', KEYS[2], ARGV[2], ARGV[4])
  return 1
end
local found = redis.pcall('GET', KEYS[2])
if type(found) == 'table' then found = '' end
if (found or '') ~= ARGV[3] then return 0 end
redis.call('SET', KEYS[2], ARGV[4])
return 1
