#!lua
-- mend_head: writes the fields of the epoch's hash that are missing or are no numbers. Without them
-- nothing is decided.
--
-- KEYS  1 epoch (hash)
-- ARGV  1 epoch under which the caller works   then field, value, ...
-- RETURNS  the number of fields written; -1 another epoch (nothing is changed)

if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return -1 end
local written = 0
for i = 2, #ARGV, 2 do
  if not tonumber(redis.call('HGET', KEYS[1], ARGV[i]) or '') then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
    written = written + 1
  end
end
return written
