#!lua
-- mend_head: write what is missing, or is no number, in the hash with the epoch. Nothing is decided until it is there.
--
-- KEYS  1 epoch (hash)
-- ARGV  1 epoch that the caller works under   then fields and their values
-- RETURNS  how many fields were written, or -1 when the epoch is another one

if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return -1 end
local written = 0
for i = 2, #ARGV, 2 do
  if not tonumber(redis.call('HGET', KEYS[1], ARGV[i]) or '') then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
    written = written + 1
  end
end
return written
