#!lua
-- forget_states: remove states that are final, old and known to MySQL, unless they changed meanwhile.
--
-- KEYS  1 epoch (hash)   2 states (hash)
-- ARGV  1 epoch that the caller read under, then state id, value that it read, ...
-- RETURNS  states removed, or -1 when the epoch is another one (nothing is changed)

if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return -1 end
local removed = 0
for i = 2, #ARGV, 2 do
  if redis.call('HGET', KEYS[2], ARGV[i]) == ARGV[i + 1] then
    removed = removed + redis.call('HDEL', KEYS[2], ARGV[i])
  end
end
return removed
