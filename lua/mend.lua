#!lua
-- mend: begins a book, or fills a lost book anew.
--
-- Nothing is decided by a book without its sentinel. So the book is filled in steps, and the
-- sentinel is written last. Of several callers, the one that begins last fills the book.
--
-- KEYS  1 epoch (hash)   2 the book (hash)
-- ARGV  1 epoch under which the caller works   2 sentinel that the book should have
--       3 token of the caller   4 step: "begin", "fill" or "end"   then field, value, ... to write
-- RETURNS  1 done; 0 the book is whole, or another caller fills it (nothing is changed); -1 another
--          epoch

local FILLED_BY = ','
local CALL_ARGUMENTS = 500

if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return -1 end
local found = redis.pcall('HMGET', KEYS[2], '.', FILLED_BY)
if not found.err and found[1] == ARGV[2] then return 0 end
if ARGV[4] == 'begin' then
  redis.call('UNLINK', KEYS[2])
  redis.call('HSET', KEYS[2], FILLED_BY, ARGV[3])
  return 1
end
if found.err or found[2] ~= ARGV[3] then return 0 end
for from = 5, #ARGV, CALL_ARGUMENTS do
  redis.call('HSET', KEYS[2], unpack(ARGV, from, math.min(from + CALL_ARGUMENTS - 1, #ARGV)))
end
if ARGV[4] == 'end' then
  redis.call('HDEL', KEYS[2], FILLED_BY)
  redis.call('HSET', KEYS[2], '.', ARGV[2])
end
return 1
