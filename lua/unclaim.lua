#!lua
-- unclaim: remove the claim of an Idempotency-Key for another shard, if it is still that.
--
-- KEYS  1, 2 the generations of accepted records
-- ARGV  1 the key's hash   2 print of the request's fingerprint   3 the shard that it was claimed for
-- RETURNS  claims removed

local removed = 0
for _, book in ipairs(KEYS) do
  local record = redis.call('HGET', book, ARGV[1])
  if record and string.sub(record, 1, 9) == ARGV[2] .. 'C'
    and string.match(record, '^%d+ (.*)$', 10) == ARGV[3] then
    removed = removed + redis.call('HDEL', book, ARGV[1])
  end
end
return removed
