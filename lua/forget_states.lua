#!lua
-- forget_states: removes states that are final, old and known to MySQL, unless they have changed
-- meanwhile.
--
-- KEYS  1 epoch (hash)   2 states (hash)
-- ARGV  1 epoch under which the caller read   then pairs: state id, value that was read
-- RETURNS  the number of states removed; -1 another epoch (nothing is changed)

if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return -1 end
local removed = 0
for i = 2, #ARGV, 2 do
  if redis.call('HGET', KEYS[2], ARGV[i]) == ARGV[i + 1] then
    removed = removed + redis.call('HDEL', KEYS[2], ARGV[i])
  end
end
return removed
