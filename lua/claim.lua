#!lua
-- claim: notes under an Idempotency-Key that another shard decides its request, unless the key is
-- known already.
--
-- KEYS  1 epoch (hash)   2, 3 generations of accepted records   4, 5 generations of refused records
-- ARGV  1 ms that an acceptance is remembered   2 ms that a refusal is remembered
--       3 hash of the key   4 print: the first 8 bytes of the request's fingerprint
--       5 shard that decides
-- RETURNS  "" if the key is claimed now; the record that the key had before; or "LOST" if the
--          records were lost. In the last two cases nothing is changed.

local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local head = redis.call('HMGET', KEYS[1], 'accepted', 'refused', 'accepted_from')
local accepted, refused, from = tonumber(head[1]), tonumber(head[2]), tonumber(head[3])
if not (accepted and refused and from) then return 'LOST' end

local known
for _, of in ipairs({ { 4, refused, ARGV[2] }, { 2, accepted, ARGV[1] } }) do
  for g = of[2] - 1, of[2] do
    local found = redis.pcall('HMGET', KEYS[of[1] + g % 2], '.', ARGV[3])
    if found.err or found[1] ~= tostring(g) then return 'LOST' end
    local since = found[2] and tonumber(string.match(found[2], '^%d+', 10))
    if since and now_ms - since <= tonumber(of[3]) then known = found[2] end
  end
end
if known then return known end

local claim = ARGV[4] .. 'C' .. string.format('%.0f', now_ms) .. ' ' .. ARGV[5]
if now_ms - from >= tonumber(ARGV[1]) then
  accepted = accepted + 1
  redis.call('UNLINK', KEYS[2 + accepted % 2])
  redis.call('HSET', KEYS[2 + accepted % 2], '.', tostring(accepted))
  redis.call('HSET', KEYS[1], 'accepted', tostring(accepted), 'accepted_from',
    string.format('%.0f', now_ms))
end
redis.call('HSET', KEYS[2 + accepted % 2], ARGV[3], claim)
return ''
