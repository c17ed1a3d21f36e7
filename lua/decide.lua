#!lua
-- decide: checks a batch of requests and journals those that are accepted, in one atomic step.
--
-- Phase one reads the keys and checks the whole batch on copies in memory, so that each request
-- sees the effects of the requests before it. Phase two only writes. Redis does not roll a script
-- back, so nothing may fail after the first write. The first write is the XADD of the first frame,
-- the only write that Redis could still refuse. When memory or disk is short, Redis refuses the
-- whole script before it runs, because the script begins with a shebang.
--
-- KEYS
--   1 epoch      hash: epoch; ms and low (last position); number (of the last entry); settled
--                (number of the last settled entry); selling (1 or 0); accepted and refused (number
--                of the younger generation of idempotency records); accepted_from and refused_from
--                (ms at which that generation began)
--   2 journal    stream of frames: field "number" with the number of the first entry, then up to
--                100 entries, each with its posted levels as field and its payload as value
--   3 states     book: state id -> state@ms
--   4 deadlines  zset: "ms-low text" of each live hold and branch -> ms at which it ends; and "."
--   5, 6         the generations of accepted idempotency records with an even and an odd number
--   7, 8         the generations of refused ones, likewise
--                A generation is a book: key hash (14 bytes) -> one of
--                  print "A" ms-low            accepted at this position
--                  print "R" ms " " code rest  refused
--                  print "C" ms " " shard      claimed for the shard that decides the request
--                where print is the first 8 bytes of the request's fingerprint
--   9 held_units hash: product:user -> units of the product that the user holds now; "branches" ->
--                number of branches that are held for orders on other shards; and ".". Derived from
--                deadlines (lua/count_held.lua), and lost together with it
--  10 ...        the accounts of the batch that have a key of their own: "balance seq flag"
--   then         the account books of the batch: field -> "balance seq" or "balance seq flag"
--
-- A book is a hash with a sentinel: its field "." holds the epoch, or the number of the generation.
-- The sentinel is written when the book is begun. Without the sentinel the hash was lost, and a
-- missing field says nothing. With the sentinel, a missing field was never written or is forgotten.
-- An account with a key of its own must exist, unless the request opens it. A flag is 0 open,
-- 1 closed, 2 quarantined.
--
-- ARGV
--   1 epoch that the caller has verified     2 shard (0..63)
--   3 number of accounts with own keys       4 number of account books
--   5 number of idempotency keys             6 unsettled entries allowed
--   7 further ones that are allowed to requests with flag 128
--   8 ms that an acceptance is remembered    9 ms that a refusal is remembered
--  10 channel of the levels message         11 number of requests
--  12 ms after which the batch comes too late (a request may have a deadline of its own)
--  13 number of transitions                14 number of held fields
--   then per account with its own key: its label in the levels message, or "" for an account that
--   is not announced
--   then per book: 1 = its accounts are announced, 0 = not; number of fields; the fields. Accounts
--   are numbered from 1: first those with keys of their own, then the books' fields in this order
--   then the hashes of the idempotency keys, numbered from 1
--   then the ids of the transitions, and then the fields of held_units in which the lines of holds
--   and releases count, both in the order of the requests
--   then per request: its shape, and for each of these flags that is set, in this order:
--     1     idempotency: index of the key; print
--     2     deadline: ms
--     8     transitions: of each the state before ("" = none) and after ("" = forget), each of them
--           ended by a line feed. A "#" at the end of the state after becomes the position of the
--           entry
--     16    closings: count; of each the account index, and 1 = close, 0 = open or 2 = close if
--           this request opens the account
--     256   refuse: a predecided answer, which is remembered under the key. After "=" it is a
--           refusal of another shard, "code rest"
--     512   switch of selling: 1 = open, 0 = stopped
--     2048 hold: its text (the member is "ms-low text")
--     4096  release: member of the hold that ends with this request; ms from which that is too late
--           (0 = never)
--     4     extension: ms at which the hold of the release ends instead
--     8192  expected: account index; the balance that the account must have
--     32768 late_check: the posting, from 1, before which the last transition is checked; one more
--           than there are postings = after all
--   and these flags, which have no arguments:
--     32    takes_stock: is refused while selling is stopped
--     64    allow_closed: may take from closed accounts
--     128   allow_backlog: may use the further entries of ARGV 7
--     16384 retried_with_new_code: a TAKEN is not remembered, because the request is made anew
--     131072 own_hold: is refused if its user holds units of a product that it takes, so that it
--           may be made anew with the hold
--     65536 retried_anew: a NOT_OPEN, CLOSED, STALE_STATE or HOLD_EXPIRED is not remembered,
--           because the request is made anew
--   then the account index of each posting, and, without flag 256, the payload
--
-- A shape is "flags opens closes", and then each posting as " delta", " delta:level" or
-- " delta:level:least". opens and closes are the window in ms (0 = no bound). level is the balance
-- at which the posting opens a missing account. least is the balance below which the posting may
-- not take (0 if it is left out). With a hold or a release there follow "|ttl", the ms that the
-- hold lives, each of its lines as " units:most", and "|" with each line of the release as
-- " units". most is the number of units of the product that the user may hold, these included
-- (0 = any number).
--
-- RETURNS  { ms of Redis' clock, unsettled entries, first, answer of request 1, of request 2, ... }
--   first: "ms-low number" of the first entry that was accepted, or "". The positions and numbers
--   of the further entries follow by one
--   A fenced batch has one answer for all its requests. A malformed call gets an error reply before
--   anything is written
--   An answer is one of
--     levels           accepted: per posting "seq:balance", or "seq:balance:o" if the posting
--                      opened the account first; "" without postings
--     "R code rest"    refused
--     "P ms-low"       accepted earlier under the same key
--     "Q code rest"    refused earlier under the same key
--   The rest depends on the code:
--     12               the key that was lost: states, deadlines or keys
--     21               the shard that decides
--     32               the predecided answer
--     50, 65           index of the transition, from 0; the state that was found
--     52               the balance that was found
--     54               how many more units the user may hold; "due" as below
--     60, 61, 62, 64   index of the posting, from 0; the account
--     63               index of the posting, from 0; the account; the units that may still be
--                      taken; then "due" if expired holds wait to be released, or "held" if units
--                      are held for an order on another shard. In both cases units may come back
--
-- CODES, in the order of the checks (numbered by hand, never reused)
--   10 FENCED              12 LOST                20 KEY_REUSED
--   21 CLAIMED             30 EXPIRED             31 BACKLOG             32 REFUSED
--   40 NOT_OPEN            41 CLOSED              50 STALE_STATE         51 SELLING_STOPPED
--   52 CHANGED             53 HOLD_EXPIRED        54 HELD_ENOUGH         55 OWN_HOLD
--   60 UNKNOWN_ACCOUNT     61 CLOSED_ACCOUNT      62 BROKEN              63 INSUFFICIENT
--   64 OVERFLOW            65 TAKEN (at the late check)
--
-- PUBLISHES  on the channel, if an entry was accepted: "epoch ms-low unsettled", and for each
--            announced account that moved "|label balance seq closed". ms-low is the last entry.
--            closed is 1 if the account is closed or quarantined, else 0
--
-- The loop over the requests makes no table per request, prints no number twice, and parses once
-- what many requests have in common. Together that more than halved the script's time
-- (docs/performance.md).

local KEYS, ARGV = KEYS, ARGV
local tonumber, format, match, band = tonumber, string.format, string.match, bit.band
local FRAME_ENTRIES = 100
local CALL_ARGUMENTS = 500
local BALANCE_MAX = 9007199254740991
local POSTING_MAX = 1000000000000
local PRIMED_KEYS = 9
local HEAD = 14
local PLACE = string.byte('#')
local EPOCH = ARGV[1]

local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)

-- Prints an integer. Lua's own way loses digits from 15 digits on, and takes three times as long.
local function text(n) return format('%d', n) end

-- A whole number within ±max, else nil. Fractions, infinity and nan give nil: nan is not within any
-- bounds, because no comparison holds for it.
local function whole(s, max)
  local n = tonumber(s)
  if n and n >= -max and n <= max and n % 1 == 0 then return n end
  return nil
end

-- The Redis is fenced unless the epoch's hash has the caller's epoch and all its numbers, and the
-- journal is a stream. Keys of another type are not ours.
local head = redis.pcall('HMGET', KEYS[1], 'epoch', 'ms', 'low', 'number', 'settled', 'selling',
  'accepted', 'accepted_from', 'refused', 'refused_from')
if head.err or head[1] ~= EPOCH
  or not (tonumber(head[2]) and tonumber(head[3]) and tonumber(head[4]) and tonumber(head[5])
    and tonumber(head[6]))
  or redis.call('TYPE', KEYS[2]).ok ~= 'stream' then
  return { now_ms, 0, '', 'R 10' } -- FENCED
end

local shard_low = ARGV[2] * 65536
local own_accounts, books = tonumber(ARGV[3]), tonumber(ARGV[4])
local idempotency_keys = tonumber(ARGV[5])
local requests, batch_deadline = tonumber(ARGV[11]), tonumber(ARGV[12])
local batch_transitions, batch_fields = tonumber(ARGV[13]), tonumber(ARGV[14])
local number, settled = tonumber(head[4]), tonumber(head[5])
local selling = head[6] ~= '0'

-- Positions rise and never repeat, also when the clock is set back or one millisecond is full.
local ms, low = tonumber(head[2]), tonumber(head[3]) + 1
if now_ms > ms then
  ms, low = now_ms, shard_low
elseif low + requests > shard_low + 65535 then
  ms, low = ms + 1, shard_low
end

-- Reads the fields of a book that stand in ARGV from..upto, and hands each to take(index in ARGV,
-- value). Returns false when the book was lost, or when its key has another type.
local function read_book(book, sentinel, from, upto, take)
  for first = from, upto, CALL_ARGUMENTS do
    local last = math.min(first + CALL_ARGUMENTS - 1, upto)
    local part = redis.pcall('HMGET', book, '.', unpack(ARGV, first, last))
    if part.err or part[1] ~= sentinel then return false end
    for i = first, last do take(i, part[i - first + 2]) end
  end
  return true
end

-- The conditions of an account. MISSING: a whole book has no such field, and a posting may open the
-- account. LOST: the account's own key is missing, and only a posting that opens the account may
-- begin it. BROKEN: the account cannot be read, or its book was lost. READ: its level was read.
local BROKEN, LOST, MISSING, READ = 0, 1, 2, 3
local balance, seq, flag, condition, touched = {}, {}, {}, {}, {}
local label = {} -- account index -> its label in the levels message, or ''
local book_of, field_at = {}, {} -- account index -> its book, from 1; its field's index in ARGV
local accounts = own_accounts

local function read_account(k, b, s, f)
  if b then b, s = b + 0, s + 0 end
  condition[k] = b and b <= BALANCE_MAX and s <= BALANCE_MAX and READ or BROKEN
  balance[k], seq[k], flag[k] = b, s, f
end

for from = 1, own_accounts, CALL_ARGUMENTS do
  local upto = math.min(from + CALL_ARGUMENTS - 1, own_accounts)
  local part = redis.call('MGET', unpack(KEYS, PRIMED_KEYS + from, PRIMED_KEYS + upto))
  for k = from, upto do
    local value, key = part[k - from + 1], KEYS[PRIMED_KEYS + k]
    label[k] = ARGV[HEAD + k]
    if value then
      read_account(k, match(value, '^(%d+) (%d+) ([012])$'))
    else
      -- MGET also answers nil for a key of another type, which must not be overwritten.
      condition[k] = redis.call('EXISTS', key) == 1 and BROKEN or LOST
    end
  end
end

local i = HEAD + own_accounts
for b = 1, books do
  local book, is_announced, from = KEYS[PRIMED_KEYS + own_accounts + b], ARGV[i + 1] == '1', i + 3
  i = from + ARGV[i + 2] - 1
  local before = accounts - from + 1
  local function take(at, value)
    local k = before + at
    if value then
      read_account(k, match(value, '^(%d+) (%d+) ?([012]?)$'))
    else
      condition[k] = MISSING
    end
  end
  local is_whole = read_book(book, EPOCH, from, i, take)
  local prefix = is_announced and match(book, ':b:(.*)$') .. ':'
  for at = from, i do
    accounts = accounts + 1
    if not is_whole then condition[accounts] = BROKEN end
    label[accounts] = prefix and prefix .. ARGV[at] or ''
    book_of[accounts], field_at[accounts] = b, at
  end
end

-- Idempotency records have two generations for acceptances and two for refusals. The younger one is
-- written. When it is as old as its records are remembered, it is full and becomes the older one.
-- The function reads the batch's keys from both generations of a kind. It returns whether the
-- younger one is full, the number of the generation to write, the index in KEYS of the kind's first
-- generation, and the records to write.
local keys_lost = false
local remembered = {} -- index of the key -> its record
local first_key = i
i = i + idempotency_keys
local function generation(first, young, from, remember_ms)
  young, from = tonumber(young), tonumber(from)
  if not (young and from) then
    keys_lost = true
    return nil
  end
  local function take(at, record)
    local since = record and tonumber(match(record, '^%d+', 10))
    if since and now_ms - since <= remember_ms then remembered[at - first_key] = record end
  end
  for g = young - 1, young do
    local book = KEYS[first + g % 2]
    -- A generation of size 1 has only its sentinel, so the batch's keys are not read from it. The
    -- older one is often empty, and so are both where nobody is refused.
    local size = redis.pcall('HLEN', book)
    local upto = size == 1 and first_key or first_key + idempotency_keys
    local is_whole = upto > first_key and read_book(book, text(g), first_key + 1, upto, take)
      or size == 1 and redis.call('HGET', book, '.') == text(g)
    keys_lost = keys_lost or not is_whole
  end
  local is_full = now_ms - from >= remember_ms
  return { is_full = is_full, number = is_full and young + 1 or young, first = first, set = {} }
end
local accepted_keys, refused_keys
if idempotency_keys > 0 then
  refused_keys = generation(7, head[9], head[10], tonumber(ARGV[9]))
  accepted_keys = generation(5, head[7], head[8], tonumber(ARGV[8]))
end

local states = {} -- state id -> state now, '' for none
local id_at = i -- index in ARGV after which the ids of the next transitions stand
local ids_end = id_at + batch_transitions
local states_lost = not read_book(KEYS[3], EPOCH, id_at + 1, ids_end, function(at, value)
  states[ARGV[at]] = value and match(value, '^[^@]*') or ''
end)
local is_set = {} -- the ids of the states that change
local field_before = ids_end -- index in ARGV after which the held fields of the next request stand
local fields_end = ids_end + batch_fields
local frames, accepted = {}, 0
local held, released = {}, {} -- to add to deadlines: score, member, ...; to remove: member, ...
local switched
local limit, limit_reserve = tonumber(ARGV[6]), ARGV[6] + ARGV[7]
local id_prefix = text(ms) .. '-'
local first_low, first_number = low, number + 1

-- Held units, as far as the batch has to do with them: field of held_units -> units now.
local units, units_changed = {}, {}

-- Whether the live holds, or their units, were lost. Redis is asked at most once, and only where a
-- request has to do with holds. The units of all requests are read with it.
local deadlines_lost
local function lost_deadlines()
  if deadlines_lost == nil then
    deadlines_lost = type(redis.pcall('ZSCORE', KEYS[4], '.')) ~= 'string'
      or not read_book(KEYS[9], '0', ids_end + 1, fields_end, function(at, value)
        units[ARGV[at]] = tonumber(value) or 0
      end)
  end
  return deadlines_lost
end

-- Whether an expired hold waits to be released. Redis is asked at most once, and only when units
-- are short.
local due
local function is_due()
  if due == nil and lost_deadlines() then due = false end
  if due == nil then
    local first = redis.call('ZRANGE', KEYS[4], 0, 0, 'WITHSCORES')
    due = first[2] ~= nil and tonumber(first[2]) <= now_ms
  end
  return due
end

local function units_at(field)
  if not units[field] then units[field] = tonumber(redis.call('HGET', KEYS[9], field)) or 0 end
  return units[field]
end

-- Whether units that are short may come back in a moment: " due", " held", or "" if not. A refusal
-- with such a word is not remembered.
local function may_come_back()
  if is_due() then return ' due' end
  return not lost_deadlines() and units_at('branches') > 0 and ' held' or ''
end

-- Counts the units of lines in the copy of held_units. The fields stand in ARGV after an index.
local function count_units(lines, after)
  for n = 1, #lines do
    local field = ARGV[after + n]
    units[field], units_changed[field] = math.max(units[field] + lines[n], 0), true
  end
end

-- The refusal of a hold that would exceed the units that its user may hold, if there is one.
local function held_enough(lines, most, after)
  for n = 1, #lines do
    if most[n] > 0 then
      local left = math.max(most[n] - units[ARGV[after + n]], 0)
      if lines[n] > left then return '54 ' .. left .. (is_due() and ' due' or '') end -- HELD_ENOUGH
    end
  end
  return nil
end

-- Small numbers repeat within a batch, so each is printed once.
local texts = setmetatable({}, { __index = function(known, n)
  known[n] = text(n)
  return known[n]
end })
-- Numbers repeat within a batch, so each text is converted once. False stands for no number.
local indices = setmetatable({}, { __index = function(known, s)
  local n = tonumber(s) or false
  known[s] = n
  return n
end })
-- The arguments and options that a request's flags announce.
local forms = setmetatable({}, { __index = function(known, s)
  local flags = tonumber(s)
  local function has(bit) return band(flags, bit) ~= 0 end
  local form = {
    idempotency = has(1), deadline = has(2), transitions = has(8), closings = has(16),
    takes_stock = has(32), allow_closed = has(64), allow_backlog = has(128), refuse = has(256),
    switch = has(512), hold = has(2048), release = has(4096), extension = has(4),
    expected = has(8192), late_check = has(32768),
    retried_with_new_code = has(16384), retried_anew = has(65536), own_hold = has(131072),
    has_parts = band(flags, 47903) ~= 0
  }
  known[s] = form
  return form
end })

-- Parses the level at which a posting opens its account, and its least level. The level is nil when
-- the posting opens no account, and false when a number is malformed.
local function opening(level, least)
  if level == '' then return nil, 0 end
  level, least = whole(level, POSTING_MAX), least == '' and 0 or whole(least, POSTING_MAX)
  if level and level >= 0 and least and least >= 0 then return level, least end
  return false
end

-- Many requests have their shape in common, so each shape is parsed once. False stands for a
-- malformed shape.
local shapes = setmetatable({}, { __index = function(known, s)
  known[s] = false
  local flags, opens, closes, list, ttl, held, released =
    match(s, '^(%d+) (%d+) (%d+)([^|]*)|?(%d*)([^|]*)|?(.*)$')
  if not flags then return false end
  local shape = { form = forms[flags], opens = opens + 0, closes = closes + 0, postings = 0,
    change = {}, open_at = {}, least_at = {},
    ends = ttl ~= '' and text(ms + ttl), held = {}, most = {}, released = {} }
  for delta, level, least in string.gmatch(list, ' ([^ :]+):?([^ :]*):?([^ :]*)') do
    local p, d = shape.postings + 1, whole(delta, POSTING_MAX)
    local open, lowest = opening(level, least)
    if not d or open == false or d == 0 and not open then return false end
    shape.postings, shape.change[p], shape.open_at[p], shape.least_at[p] = p, d, open, lowest
  end
  for units_held, most in string.gmatch(held, ' (%d+):(%d+)') do
    local n = #shape.held + 1
    shape.held[n], shape.most[n] = tonumber(units_held), tonumber(most)
  end
  for units_held in string.gmatch(released, ' (%d+)') do
    shape.released[#shape.released + 1] = -tonumber(units_held)
  end
  known[s] = shape
  return shape
end })

-- Many requests have their transitions in common too: the states before and after. Where a state
-- after ends with the position of the entry, is_placed says so.
local changes = setmetatable({}, { __index = function(known, s)
  local of, count = { from = {}, to = {}, is_placed = {} }, 0
  for from, to in string.gmatch(s, '([^\n]*)\n([^\n]*)\n') do
    count = count + 1
    local is_placed = string.byte(to, -1) == PLACE
    of.from[count], of.to[count] = from, is_placed and string.sub(to, 1, -2) or to
    of.is_placed[count] = is_placed
  end
  of.count = count
  known[s] = of
  return of
end })

-- The request at hand: its shape, its postings as arrays from 1, and its optional arguments, which
-- are nil where it has none.
local form, shape, postings, payload
local account, change, open_at = {}, nil, nil
local key, print, deadline, closing_list, refuse, switch
local hold_text, hold_fields, release, release_until, release_fields, extended
local expected, expected_balance
local transitions, transition, state_before, late_at = 0, nil, nil, nil
local has_parts = false
i = fields_end

local function next_argument()
  i = i + 1
  return ARGV[i]
end

-- Parses the optional arguments of a request. Returns false when it has more transitions or lines
-- than there are ids or fields.
local function parse_parts()
  if form.idempotency then key, print = tonumber(next_argument()), next_argument() end
  if form.deadline then deadline = tonumber(next_argument()) end
  if form.transitions then
    i = i + 1
    transition = changes[ARGV[i]]
    transitions, state_before = transition.count, id_at
    id_at = id_at + transitions
    if id_at > ids_end then return false end
  end
  if form.closings then
    closing_list = {}
    for c = 1, tonumber(next_argument()) do
      closing_list[c] = { tonumber(next_argument()), next_argument() }
    end
  end
  if form.refuse then refuse = next_argument() end
  if form.switch then switch = next_argument() end
  if form.hold then
    hold_text, hold_fields = next_argument(), field_before
    field_before = field_before + #shape.held
  end
  if form.release then
    release, release_until = next_argument(), tonumber(next_argument())
    release_fields = field_before
    field_before = field_before + #shape.released
  end
  if field_before > fields_end then return false end
  if form.extension then extended = next_argument() end
  if form.expected then
    expected, expected_balance = tonumber(next_argument()), tonumber(next_argument())
  end
  if form.late_check then
    i = i + 1
    late_at = indices[ARGV[i]]
  end
  return true
end

-- Parses the next request. Returns false when the request is malformed.
local function parse()
  i = i + 1
  shape = shapes[ARGV[i]]
  if not shape then return false end
  form, postings, change, open_at = shape.form, shape.postings, shape.change, shape.open_at
  if has_parts then -- the request before had some of them
    key, deadline, closing_list, refuse, switch = nil
    hold_text, release, extended, expected, late_at = nil
    transitions = 0
  end
  has_parts = form.has_parts
  if has_parts and not parse_parts() then return false end
  for p = 1, postings do
    i = i + 1
    local k = indices[ARGV[i]]
    account[p] = k
    if not condition[k] then return false end
  end
  if not refuse then
    i = i + 1
    payload = ARGV[i]
  end
  return true
end

-- The condition of the account before each move of the request at hand, and the posted levels. All
-- requests use the same tables.
local condition_before, posted = {}, {}

-- Names a posting, from 0, and its account in a refusal. The account is written out, because a
-- remembered refusal is read without its request.
local function place(p)
  local k = account[p]
  local b = book_of[k]
  local name = b and match(KEYS[PRIMED_KEYS + own_accounts + b], ':b:(.*)$') .. ':'
    .. ARGV[field_at[k]] or match(KEYS[PRIMED_KEYS + k], ':a:(.*)$')
  return ' ' .. p - 1 .. ' ' .. name
end

-- Whether anybody holds units of a product. Redis is asked at most once, and only for requests with
-- flag 131072.
local holds
local function has_holds()
  if holds == nil then holds = not lost_deadlines() and redis.call('HLEN', KEYS[9]) > 1 end
  return holds
end

-- Whether the user of the request at hand holds units of a product that it takes.
local function has_own_hold()
  local user = match(payload, '"actor":(%d+)')
  for p = 1, postings do
    local product = change[p] < 0 and match(place(p), ' AVAILABLE:(%d+):')
    if product and user and units_at(product .. ':' .. user) > 0 then return true end
  end
  return false
end

-- Moves the account's copy by posting p. Returns the refusal, if there is one.
local function move(p)
  local k, delta = account[p], change[p]
  local was, before, now_seq = condition[k], balance[k], seq[k]
  local open = open_at[p]
  condition_before[p] = was
  if was == MISSING and not open then return '60' .. place(p) end -- UNKNOWN_ACCOUNT
  if delta < 0 and was == READ and flag[k] == '1' and not form.allow_closed then
    return '61' .. place(p) -- CLOSED_ACCOUNT
  end
  if was == BROKEN or was == LOST and not open
    or delta < 0 and was == READ and flag[k] == '2' then
    return '62' .. place(p) -- BROKEN
  end
  local is_new = was ~= READ
  if is_new then before, now_seq = open, 1 end
  local after, least = before + delta, shape.least_at[p]
  if delta < 0 and after < least then
    local left = text(math.max(before - least, 0))
    return '63' .. place(p) .. ' ' .. left .. may_come_back() -- INSUFFICIENT
  end
  if after > BALANCE_MAX then return '64' .. place(p) end -- OVERFLOW
  if delta ~= 0 then now_seq = now_seq + 1 end
  balance[k], seq[k] = after, now_seq
  if is_new then condition[k], flag[k] = READ, '0' end
  posted[p] = format(is_new and '%d:%d:o' or '%d:%d', now_seq, after)
  return nil
end

-- The first of the transitions first..last whose thing is in another state, and that state.
local function stale(first, last)
  for m = first, last do
    local state = states[ARGV[state_before + m]]
    if state ~= transition.from[m] then return ' ' .. m - 1 .. ' ' .. state end
  end
  return nil
end

-- The refusal of the late check, if there is one.
local function late_refusal()
  local found = stale(transitions, transitions)
  return found and '65' .. found -- TAKEN
end

-- Puts back the copies that postings 1..upto have moved. The level of an account that was not READ
-- is never looked at.
local function undo(upto)
  for p = upto, 1, -1 do
    local k = account[p]
    condition[k], balance[k] = condition_before[p], balance[k] - change[p]
    if change[p] ~= 0 then seq[k] = seq[k] - 1 end
  end
end

-- Moves the copies posting by posting, and puts them back when one is refused. Returns the posted
-- levels, or nil and the refusal.
local function post()
  for p = 1, postings do
    if p == late_at then
      local refusal = late_refusal()
      if refusal then
        undo(p - 1)
        return nil, refusal
      end
    end
    local refusal = move(p)
    if refusal then
      undo(p - 1)
      return nil, refusal
    end
  end
  if late_at and late_at > postings then
    local refusal = late_refusal()
    if refusal then
      undo(postings)
      return nil, refusal
    end
  end
  for p = 1, postings do touched[account[p]] = true end
  if postings == 1 then return posted[1] end
  if postings == 2 then return posted[1] .. ' ' .. posted[2] end
  if postings == 3 then return posted[1] .. ' ' .. posted[2] .. ' ' .. posted[3] end
  return table.concat(posted, ' ', 1, postings)
end

-- The name of a lost key without which the request at hand cannot be decided, or nil.
local function lost()
  if key and keys_lost then return 'keys' end
  if transitions > 0 and states_lost then return 'states' end
  if (hold_text or release) and lost_deadlines() then return 'deadlines' end
  return nil
end

-- The checks before the postings, in the order of the codes. Returns the refusal, if there is one.
local function guard()
  if now_ms > (deadline or batch_deadline) then return '30' end -- EXPIRED
  local most = form.allow_backlog and limit_reserve or limit
  if not refuse and number - settled >= most then return '31' end -- BACKLOG
  local elsewhere = refuse and match(refuse, '^=(.*)$')
  if elsewhere then return elsewhere end -- the refusal of another shard
  if refuse then return '32 ' .. refuse end -- REFUSED
  if now_ms < shape.opens then return '40' end -- NOT_OPEN
  if shape.closes > 0 and now_ms >= shape.closes then return '41' end -- CLOSED
  if transitions > 0 then
    local found = stale(1, late_at and transitions - 1 or transitions)
    if found then return '50' .. found end -- STALE_STATE
  end
  if not selling and form.takes_stock then return '51' end -- SELLING_STOPPED
  if expected and condition[expected] >= MISSING then
    local found = balance[expected] or 0
    if found ~= expected_balance then return '52 ' .. text(found) end -- CHANGED
  end
  if release and release_until > 0 and now_ms >= release_until then return '53' end -- HOLD_EXPIRED
  local enough = hold_text and held_enough(shape.held, shape.most, hold_fields)
  if enough then return enough end
  if form.own_hold and has_holds() and has_own_hold() then return '55' end -- OWN_HOLD
  return nil
end

-- Whether the request at hand, which was just accepted, has opened account k.
local function opens_now(k)
  for p = 1, postings do
    if account[p] == k and condition_before[p] ~= READ then return true end
  end
  return false
end

local frame, frame_length
-- Puts an accepted request into the journal's frame, the holds, the states, the flags and the
-- switch. The entry's field is its posted levels.
local function accept(decided)
  local position = has_parts and id_prefix .. text(low)
  number = number + 1
  if accepted % FRAME_ENTRIES == 0 then
    frame = { id_prefix .. text(low), 'number', text(number) }
    frames[#frames + 1], frame_length = frame, 3
  end
  if hold_text then
    held[#held + 1], held[#held + 2] = shape.ends, position .. ' ' .. hold_text
    count_units(shape.held, hold_fields)
  end
  if release then
    if extended then
      held[#held + 1], held[#held + 2] = extended, release
    else
      released[#released + 1] = release
    end
    count_units(shape.released, release_fields)
  end
  accepted, low = accepted + 1, low + 1
  frame[frame_length + 1], frame[frame_length + 2] = decided, payload
  frame_length = frame_length + 2
  if transitions > 0 then
    for m = 1, transitions do
      local k, to = ARGV[state_before + m], transition.to[m]
      states[k], is_set[k] = transition.is_placed[m] and to .. position or to, true
    end
  end
  if closing_list then
    for c = 1, #closing_list do
      local k, how = closing_list[c][1], closing_list[c][2]
      -- A quarantined account stays quarantined until somebody ends that.
      if condition[k] == READ and flag[k] ~= '2' and (how ~= '2' or opens_now(k)) then
        flag[k], touched[k] = how == '0' and '0' or '1', true
      end
    end
  end
  if switch then selling, switched = switch == '1', switch end
end

-- These refusals are not remembered under a key, so that the same key may be tried again: a refusal
-- whose reason passes by (a late request, a full backlog, stopped selling, a broken account), a
-- refusal after which units may come back, and a refusal after which the request is made anew.
-- `Refusal::remembered` is the rule, and a test compares the two.
local PASSING = {
  ['30'] = true, ['31'] = true, ['51'] = true, ['55'] = true, ['62'] = true,
}
local MAY_COME_BACK = { ['54'] = true, ['63'] = true }
local MADE_ANEW = {
  ['40'] = 'retried_anew', ['41'] = 'retried_anew', ['50'] = 'retried_anew',
  ['53'] = 'retried_anew',
  ['65'] = 'retried_with_new_code',
}

local function is_remembered(refusal)
  local code, last = match(refusal, '^%d+'), match(refusal, '(%a+)$')
  return not (PASSING[code] or MAY_COME_BACK[code] and (last == 'due' or last == 'held')
    or MADE_ANEW[code] and form[MADE_ANEW[code]])
end

local function remember(generations, record)
  remembered[key] = record
  generations.set[key] = record
end

-- Decides the request at hand and returns its answer: lost keys first, then the record of its key,
-- then the checks, and last the postings.
local function judge()
  local missing = has_parts and lost()
  if missing then return 'R 12 ' .. missing end -- LOST
  local record = key and remembered[key]
  if record then
    if string.sub(record, 1, 8) ~= print then return 'R 20' end -- KEY_REUSED
    local kind = string.sub(record, 9, 9)
    if kind == 'A' then return 'P ' .. string.sub(record, 10) end
    local rest = match(record, '^%d+ (.*)$', 10)
    if kind == 'C' then return 'R 21 ' .. rest end -- CLAIMED
    return 'Q ' .. rest
  end
  local refusal, decided = guard(), nil
  if not refusal then decided, refusal = post() end
  if refusal then
    if key and is_remembered(refusal) then
      remember(refused_keys, print .. 'R' .. text(now_ms) .. ' ' .. refusal)
    end
    return 'R ' .. refusal
  end
  if key then remember(accepted_keys, print .. 'A' .. id_prefix .. text(low)) end
  accept(decided)
  return decided
end

local answers = { now_ms, 0, '' }
for n = 1, requests do
  if not parse() then return redis.error_reply('MALFORMED request ' .. n) end
  answers[n + 3] = judge()
end
if i ~= #ARGV or id_at ~= ids_end or field_before ~= fields_end then
  return redis.error_reply('MALFORMED batch')
end
answers[2] = number - settled
if accepted > 0 then answers[3] = id_prefix .. first_low .. ' ' .. text(first_number) end

-- Phase two: from here on the script only writes. Long lists take several commands, because unpack
-- has a limit.
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
  local head_text = text(ms) .. '-' .. text(low - 1) .. ' ' .. text(number - settled)
  local levels, values, book_values = { EPOCH .. ' ' .. head_text }, {}, {}
  for b = 1, books do book_values[b] = {} end
  for k = 1, accounts do
    if touched[k] then
      local b, level = book_of[k], format('%d %d', balance[k], seq[k])
      local is_plain = flag[k] == '0' or flag[k] == ''
      if label[k] ~= '' then
        levels[#levels + 1] = label[k] .. ' ' .. level .. (is_plain and ' 0' or ' 1')
      end
      if b then
        local list = book_values[b]
        local n = #list
        list[n + 1], list[n + 2] = ARGV[field_at[k]], is_plain and level or level .. ' ' .. flag[k]
      else
        values[#values + 1], values[#values + 2] = KEYS[PRIMED_KEYS + k], level .. ' ' .. flag[k]
      end
    end
  end
  write_all('MSET', nil, values)
  for b = 1, books do
    write_all('HSET', KEYS[PRIMED_KEYS + own_accounts + b], book_values[b])
  end
  local set, set_length, forgotten, at = {}, 0, {}, '@' .. text(ms)
  for k in pairs(is_set) do
    if states[k] == '' then
      forgotten[#forgotten + 1] = k
    else
      set[set_length + 1], set[set_length + 2] = k, states[k] .. at
      set_length = set_length + 2
    end
  end
  write_all('HSET', KEYS[3], set)
  write_all('HDEL', KEYS[3], forgotten)
  write_all('ZADD', KEYS[4], held)
  write_all('ZREM', KEYS[4], released)
  local holding, idle = {}, {}
  for field in pairs(units_changed) do
    if units[field] > 0 then
      holding[#holding + 1], holding[#holding + 2] = field, texts[units[field]]
    else
      idle[#idle + 1] = field
    end
  end
  write_all('HSET', KEYS[9], holding)
  write_all('HDEL', KEYS[9], idle)
  redis.call('PUBLISH', ARGV[10], table.concat(levels, '|'))
end

-- Begins the next generation if the younger one is full, and writes the records.
local function write_records(kind, generations)
  local records = {}
  for k, record in pairs(generations.set) do
    records[#records + 1] = ARGV[first_key + k]
    records[#records + 1] = record
  end
  if #records == 0 then return end
  local book, young = KEYS[generations.first + generations.number % 2], text(generations.number)
  if generations.is_full then
    redis.call('UNLINK', book)
    redis.call('HSET', book, '.', young)
    redis.call('HSET', KEYS[1], kind, young, kind .. '_from', text(now_ms))
  end
  write_all('HSET', book, records)
end
if accepted_keys and refused_keys then
  write_records('accepted', accepted_keys)
  write_records('refused', refused_keys)
end
return answers
