#!lua
-- decide: judge a batch of requests and journal what is accepted, all in one atomic step.
--
-- Phase one reads every key once and judges the whole batch on copies in memory, so that twins in
-- one batch see each other. Phase two only writes. A script does not roll back, so nothing may be
-- able to fail after the first write: the first write is the XADD of the first frame, the only one
-- that Redis could still refuse, and the shebang lets Redis refuse the whole script when memory or
-- disk is short.
--
-- KEYS
--   1 epoch     hash: epoch, ms and low (last position), number, settled, selling
--   2 journal   stream: a frame is up to 100 entries, field = facts, value = payload
--   3 states    hash: mark id -> state@ms
--   4 opened    hash: account label -> how often it was opened (never above 1)
--   5 ...       the accounts of the batch: "balance seq closed"
--   then        the idempotency keys of the batch: "fingerprint A ms-low" | "fingerprint R code ..."
--
-- ARGV
--   1 epoch that the caller believes in      2 shard (0..63)
--   3 number of accounts                     4 number of idempotency keys
--   5 unsettled entries allowed              6 further ones allowed to cancels and expiries
--   7 ms that an acceptance is remembered    8 ms that a refusal is remembered
--   9 channel of the levels message         10 number of requests
--  11 ms after which the batch comes too late (a request may name an earlier one)
--   then per account: its label in the levels message, or "" for an account that is not announced
--   then per request: flags, number of postings, and, where its flag is set, in this order
--     1    idempotency: index of the key, fingerprint
--     2    deadline: ms
--     4    window: opens ms, closes ms (0 = no bound)
--     8    marks: count, then id, expected state ("" = none), next state ("" = forget) of each
--     16   account flags: count, then account index, 1 = close or 0 = open of each
--     256  refuse: an answer decided outside, remembered under the key
--     512  selling switch: 1 = open, 0 = stopped
--     without a part: 32 takes from stock, 64 even from a closed account, 128 even above the limit
--   then its postings (account index, delta; with flag 1024 also the opening level or "") and
--   unless refused outside, the payload
--
-- RETURNS  { time ms, unsettled entries, answer of request 1, answer of request 2, ... }
--   "A ms-low facts"  accepted        "P ms-low"        accepted earlier under the same key
--   "R code rest"     refused         "Q code rest"     refused earlier under the same key
--   facts: number, then per posting seq:balance, or seq:balance:o if it opened the account first
--
-- CODES, in the order of the checks (numbered by hand, never reused)
--   10 FENCED              20 KEY_REUSED          30 EXPIRED            31 BACKLOG
--   32 REFUSED             40 NOT_OPEN            41 CLOSED             50 STALE_STATE
--   51 SELLING_STOPPED     60 UNKNOWN_ACCOUNT     61 CLOSED_ACCOUNT     62 BROKEN
--   63 INSUFFICIENT        64 OVERFLOW
--
-- PUBLISHES  on the channel: "ms-low unsettled|label balance seq closed|..."

local band = bit.band
local FRAME_ENTRIES = 100
local CALL_ARGUMENTS = 500
local BALANCE_MAX = 9007199254740991
local POSTING_MAX = 1000000000000
local PRIMED_KEYS = 4
local HEAD = 11

local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)

-- %.14g, Lua's own way to print a number, loses digits from 15 digits on.
local function text(n)
  if n < 100000000000000 then return tostring(n) end
  return string.format('%.0f', n)
end

-- A whole number within ±max; anything else that a number may be written as is refused here, nan
-- and infinity too, for which no comparison holds.
local function whole(s, max)
  local n = tonumber(s)
  if n and n >= -max and n <= max and n % 1 == 0 then return n end
  return nil
end

-- The only reads that may meet a key of a foreign type: such a Redis is not ours.
local head = redis.pcall('HMGET', KEYS[1], 'epoch', 'ms', 'low', 'number', 'settled', 'selling')
local fenced = head.err or head[1] ~= ARGV[1]
  or not (tonumber(head[2]) and tonumber(head[3]) and tonumber(head[4]) and tonumber(head[5]))
  or redis.call('TYPE', KEYS[2]).ok ~= 'stream'
for i = 3, PRIMED_KEYS do
  local kind = redis.call('TYPE', KEYS[i]).ok
  fenced = fenced or (kind ~= 'hash' and kind ~= 'none')
end
if fenced then return { now_ms, 0, 'R 10' } end -- FENCED

local shard_low = ARGV[2] * 65536
local accounts, idempotency_keys = tonumber(ARGV[3]), tonumber(ARGV[4])
local requests, batch_deadline = tonumber(ARGV[10]), tonumber(ARGV[11])
local number, settled = tonumber(head[4]), tonumber(head[5])
local selling = head[6] ~= '0'

-- Ids rise and never repeat, also when the clock is set back or one millisecond is full.
local ms, low = tonumber(head[2]), tonumber(head[3]) + 1
if now_ms > ms then
  ms, low = now_ms, shard_low
elseif low + requests > shard_low + 65535 then
  ms, low = ms + 1, shard_low
end

local function read_all(first, count)
  local values = {}
  for from = first, first + count - 1, CALL_ARGUMENTS do
    local upto = math.min(from + CALL_ARGUMENTS, first + count) - 1
    local part = redis.call('MGET', unpack(KEYS, from, upto))
    for i = 1, #part do values[#values + 1] = part[i] end
  end
  return values
end

local BROKEN, MISSING, READ = 0, 1, 2
local balance, seq, closed, condition, touched, opened = {}, {}, {}, {}, {}, {}
local stored = read_all(PRIMED_KEYS + 1, accounts)
for k = 1, accounts do
  local value = stored[k]
  if value then
    local b, s, c = string.match(value, '^(%d+) (%d+) ([01])$')
    b, s = whole(b, BALANCE_MAX), whole(s, BALANCE_MAX)
    condition[k] = b and s and READ or BROKEN
    balance[k], seq[k], closed[k] = b, s, c == '1'
  else
    -- MGET answers nil for a key of another type as well; that one must not be opened over.
    local key = KEYS[PRIMED_KEYS + k]
    condition[k] = redis.call('EXISTS', key) == 1 and BROKEN or MISSING
  end
end

local remembered = read_all(PRIMED_KEYS + accounts + 1, idempotency_keys)
local remember = {} -- key index -> { value, ms }
local states = {} -- mark id -> state now, '' for none
local marks_set, marks = {}, {}
local frames, answers, accepted = {}, { now_ms, 0 }, 0
local switched

local function state_of(id)
  local state = states[id]
  if state == nil then
    local value = redis.call('HGET', KEYS[3], id)
    state = value and string.match(value, '^[^@]*') or ''
    states[id] = state
  end
  return state
end

local i = HEAD + accounts
local function next_argument()
  i = i + 1
  return ARGV[i]
end

-- Parses one request; nil when a number is not what both sides agreed on.
local function parse()
  -- Every field is named here, so that the table has its size from the start.
  local flags = tonumber(next_argument())
  local r = {
    flags = flags, n = tonumber(next_argument()), first = 0, payload = false, key = nil,
    fingerprint = nil, deadline = nil, opens = nil, closes = nil, marks = nil, closings = nil,
    refuse = nil, switch = nil
  }
  if not r.n then return nil end
  if band(flags, 1) ~= 0 then
    r.key, r.fingerprint = tonumber(next_argument()), next_argument()
  end
  if band(flags, 2) ~= 0 then r.deadline = tonumber(next_argument()) end
  if band(flags, 4) ~= 0 then
    r.opens, r.closes = tonumber(next_argument()), tonumber(next_argument())
  end
  if band(flags, 8) ~= 0 then
    r.marks = {}
    for m = 1, tonumber(next_argument()) do
      r.marks[m] = { next_argument(), next_argument(), next_argument() }
    end
  end
  if band(flags, 16) ~= 0 then
    r.closings = {}
    for c = 1, tonumber(next_argument()) do
      r.closings[c] = { tonumber(next_argument()), next_argument() == '1' }
    end
  end
  if band(flags, 256) ~= 0 then r.refuse = next_argument() end
  if band(flags, 512) ~= 0 then r.switch = next_argument() end
  r.first = i
  local opens = band(flags, 1024) ~= 0
  local step = opens and 3 or 2
  for p = 0, r.n - 1 do
    local at = i + p * step
    local k, delta = tonumber(ARGV[at + 1]), whole(ARGV[at + 2], POSTING_MAX)
    local open = opens and ARGV[at + 3] or ''
    if open ~= '' then
      open = whole(open, POSTING_MAX)
      if not open or open < 0 then return nil end
    elseif delta == 0 then
      return nil
    end
    if not delta or not k or k < 1 or k > accounts then return nil end
  end
  i = i + r.n * step
  if not r.refuse then r.payload = next_argument() end
  return r
end

-- What a request moved so far, to be put back when a later posting is refused. Used again by each.
local undo_k, undo_condition, undo_balance, undo_seq, facts = {}, {}, {}, {}, {}

-- Moves the account's copy by one posting; returns the refusal, if it is one.
local function move(p, k, delta, open, even_closed)
  local was = condition[k]
  if was == MISSING and open == '' then return '60 ' .. p end -- UNKNOWN_ACCOUNT
  if was == READ and closed[k] and delta < 0 and not even_closed then
    return '61 ' .. p -- CLOSED_ACCOUNT
  end
  if was == BROKEN then return '62 ' .. p end -- BROKEN
  undo_k[p], undo_condition[p], undo_balance[p], undo_seq[p] = k, was, balance[k], seq[k]
  local mark = ''
  if was == MISSING then
    condition[k], balance[k], seq[k], closed[k] = READ, tonumber(open), 1, false
    mark = ':o'
  end
  local after = balance[k] + delta
  if after < 0 then return '63 ' .. p .. ' ' .. text(balance[k]) end -- INSUFFICIENT
  if after > BALANCE_MAX then return '64 ' .. p end -- OVERFLOW
  if delta ~= 0 then balance[k], seq[k] = after, seq[k] + 1 end
  facts[p + 1] = seq[k] .. ':' .. text(after) .. mark
  return nil
end

-- Moves the copies posting by posting; a refusal puts them back. Returns facts | nil, refusal.
local function post(r)
  local opens = band(r.flags, 1024) ~= 0
  local step = opens and 3 or 2
  local even_closed = band(r.flags, 64) ~= 0
  for p = 0, r.n - 1 do
    local at = r.first + p * step
    undo_k[p] = nil
    local k, delta = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
    local refusal = move(p, k, delta, opens and ARGV[at + 3] or '', even_closed)
    if refusal then
      for u = p, 0, -1 do
        local moved = undo_k[u]
        if moved then
          condition[moved], balance[moved], seq[moved] =
            undo_condition[u], undo_balance[u], undo_seq[u]
        end
      end
      return nil, refusal
    end
  end
  for p = 0, r.n - 1 do
    touched[undo_k[p]] = true
    if undo_condition[p] == MISSING then opened[undo_k[p]] = true end
  end
  return table.concat(facts, ' ', 1, r.n)
end

-- The guards that stand before the postings, in the order of the codes.
local function guard(r)
  if now_ms > (r.deadline or batch_deadline) then return '30' end -- EXPIRED
  local limit = ARGV[5] + (band(r.flags, 128) ~= 0 and ARGV[6] or 0)
  if not r.refuse and number - settled >= limit then return '31' end -- BACKLOG
  if r.refuse then return '32 ' .. r.refuse end -- REFUSED
  if r.opens and r.opens > 0 and now_ms < r.opens then return '40' end -- NOT_OPEN
  if r.closes and r.closes > 0 and now_ms >= r.closes then return '41' end -- CLOSED
  if r.marks then
    for m = 1, #r.marks do
      local state = state_of(r.marks[m][1])
      if state ~= r.marks[m][2] then return '50 ' .. (m - 1) .. ' ' .. state end -- STALE_STATE
    end
  end
  if not selling and band(r.flags, 32) ~= 0 then return '51' end -- SELLING_STOPPED
  return nil
end

local function accept(r, facts)
  number = number + 1
  local id = text(ms) .. '-' .. text(low)
  if accepted % FRAME_ENTRIES == 0 then frames[#frames + 1] = { id } end
  accepted, low = accepted + 1, low + 1
  local frame = frames[#frames]
  facts = facts == '' and text(number) or text(number) .. ' ' .. facts
  frame[#frame + 1], frame[#frame + 2] = facts, r.payload
  if r.marks then
    for m = 1, #r.marks do
      local mark = r.marks[m]
      states[mark[1]] = mark[3]
      if not marks_set[mark[1]] then marks[#marks + 1] = mark[1] end
      marks_set[mark[1]] = ms
    end
  end
  if r.closings then
    for c = 1, #r.closings do
      local k = r.closings[c][1]
      if condition[k] == READ then closed[k], touched[k] = r.closings[c][2], true end
    end
  end
  if r.switch then selling, switched = r.switch == '1', r.switch end
  return id, facts
end

-- What a request decides by itself, and what passes by (a fence, a full backlog, a late request, a
-- broken key), is not remembered: the same key may be tried again.
local PASSING = { ['30'] = true, ['31'] = true, ['51'] = true, ['62'] = true }

local function judge(r)
  local known = r.key and (remember[r.key] and remember[r.key][1] or remembered[r.key])
  if known then
    local fingerprint, kind, rest = string.match(known, '^(%S+) (%S) (.*)$')
    if fingerprint ~= r.fingerprint then return 'R 20' end -- KEY_REUSED
    return (kind == 'A' and 'P ' or 'Q ') .. rest
  end
  local refusal, facts = guard(r), nil
  if not refusal then facts, refusal = post(r) end
  if refusal then
    if r.key and not PASSING[string.match(refusal, '^%d+')] then
      remember[r.key] = { r.fingerprint .. ' R ' .. refusal, ARGV[8] }
    end
    return 'R ' .. refusal
  end
  local id
  id, facts = accept(r, facts)
  if r.key then remember[r.key] = { r.fingerprint .. ' A ' .. id, ARGV[7] } end
  return 'A ' .. id .. ' ' .. facts
end

for n = 1, requests do
  local r = parse()
  if not r then return redis.error_reply('MALFORMED request ' .. n) end
  answers[#answers + 1] = judge(r)
end
if i ~= #ARGV then return redis.error_reply('MALFORMED batch') end
answers[2] = number - settled

-- Phase two: from here on only writes.
local function write_all(command, key, arguments)
  for from = 1, #arguments, CALL_ARGUMENTS do
    local upto = math.min(from + CALL_ARGUMENTS - 1, #arguments)
    if key then
      redis.call(command, key, unpack(arguments, from, upto))
    else
      redis.call(command, unpack(arguments, from, upto))
    end
  end
end

for f = 1, #frames do redis.call('XADD', KEYS[2], unpack(frames[f])) end

if accepted > 0 then
  redis.call('HSET', KEYS[1], 'ms', text(ms), 'low', text(low - 1), 'number', text(number))
  if switched then redis.call('HSET', KEYS[1], 'selling', switched) end
  local levels, values = { text(ms) .. '-' .. text(low - 1) .. ' ' .. text(number - settled) }, {}
  for k = 1, accounts do
    if touched[k] then
      local level = text(balance[k]) .. ' ' .. text(seq[k]) .. (closed[k] and ' 1' or ' 0')
      values[#values + 1], values[#values + 2] = KEYS[PRIMED_KEYS + k], level
      local label = ARGV[HEAD + k]
      if label ~= '' then levels[#levels + 1] = label .. ' ' .. level end
      if opened[k] then redis.call('HINCRBY', KEYS[4], KEYS[PRIMED_KEYS + k], 1) end
    end
  end
  write_all('MSET', nil, values)
  local set, forgotten = {}, {}
  for m = 1, #marks do
    local id = marks[m]
    if states[id] == '' then
      forgotten[#forgotten + 1] = id
    else
      set[#set + 1], set[#set + 2] = id, states[id] .. '@' .. text(marks_set[id])
    end
  end
  write_all('HSET', KEYS[3], set)
  write_all('HDEL', KEYS[3], forgotten)
  redis.call('PUBLISH', ARGV[9], table.concat(levels, '|'))
end
for k, value in pairs(remember) do
  redis.call('SET', KEYS[PRIMED_KEYS + accounts + k], value[1], 'PX', value[2])
end
return answers
