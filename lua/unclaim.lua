#!lua
-- unclaim: removes the claim of an Idempotency-Key for a shard, if the key still has that claim.
--
-- KEYS  1, 2 generations of accepted records
-- ARGV  1 hash of the key   2 print: the first 8 bytes of the request's fingerprint
--       3 shard for which the key was claimed
-- RETURNS  the number of claims removed

local removed = 0
for _, book in ipairs(KEYS) do
  local record = redis.call('HGET', book, ARGV[1])
  if record and string.sub(record, 1, 9) == ARGV[2] .. 'C'
    and string.match(record, '^%d+ (.*)$', 10) == ARGV[3] then
    removed = removed + redis.call('HDEL', book, ARGV[1])
  end
end
return removed
