#!lua
-- count_held: counts anew, from the live holds, how many units of each product each user holds, and
-- how many branches are held for orders on other shards.
--
-- The counts are derived. decide.lua keeps them, and no other script changes them. This script
-- writes them anew in one atomic step: when they were lost or are wrong, or when the holds were
-- written anew.
--
-- KEYS  1 deadlines (zset)   2 held_units (hash)
-- ARGV  none
-- RETURNS  the number of fields, without the sentinel

local units, count = { ['.'] = '0' }, 0
local function add(field, quantity)
  if not units[field] then count = count + 1 end
  units[field] = (units[field] or 0) + tonumber(quantity)
end

for _, member in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local user, product, quantity = string.match(member, '^%S+ (%d+) (%d+) %d+ (%d+) %d+ %d+$')
  local buyer = string.match(member, '^%S+ checkout (%d+) ')
  if user then
    add(product .. ':' .. user, quantity)
  elseif buyer then
    for line_product, units_held in string.gmatch(member, ' (%d+):%d+:(%d+):%d+') do
      add(line_product .. ':' .. buyer, units_held)
    end
  elseif string.match(member, '^%S+ branch$') then
    add('branches', 1)
  end
end
redis.call('UNLINK', KEYS[2])
for field, held in pairs(units) do redis.call('HSET', KEYS[2], field, held) end
return count
