-- wrk: sends one kind of request for a file of tokens, and reports one line of JSON.
--
-- BENCH_TOKENS  a file of tokens, one a line
-- BENCH_METHOD, BENCH_PATH, BENCH_BODY
-- BENCH_ANONYMOUS "1": without tokens
-- BENCH_SECRET  a service key in place of the tokens: BUYER in the body is then a buyer's name
-- BENCH_BATCH   how many such bodies a request has, each with a key of its own; 0 is one as it is
-- BENCH_HEADER, BENCH_HEADER_VALUE  another header, "" for none
-- BENCH_KEYED   "1": each request has its own Idempotency-Key
-- BENCH_SALT    begins the keys, so that no two runs share one
-- BENCH_COUNTED "1": the number 1000000 in the body is replaced. Each round over all tokens has the
--               next number after BENCH_FIRST, with as many digits

local requests, at, key = {}, 0, 0
local keyed = os.getenv("BENCH_KEYED") == "1"
local counted = os.getenv("BENCH_COUNTED") == "1"
local number = tonumber(os.getenv("BENCH_FIRST"))
local salt = os.getenv("BENCH_SALT")
local secret = os.getenv("BENCH_SECRET")
local batch = tonumber(os.getenv("BENCH_BATCH"))
-- The ends of the orders of a batch, each of another buyer.
local orders, batch_headers = {}, nil

function init()
  for token in io.lines(os.getenv("BENCH_TOKENS")) do
    local headers = { ["Content-Type"] = "application/json" }
    if secret ~= "" then token = secret end
    if os.getenv("BENCH_ANONYMOUS") ~= "1" then headers["Authorization"] = "Bearer " .. token end
    if os.getenv("BENCH_HEADER") ~= "" then headers[os.getenv("BENCH_HEADER")] = os.getenv("BENCH_HEADER_VALUE") end
    local body = os.getenv("BENCH_BODY")
    if secret ~= "" then body = body:gsub("BUYER", "shopuser-" .. #requests + 1) end
    if batch > 0 then
      orders[#orders + 1], batch_headers = '",' .. body:sub(2), headers
    end
    local request = wrk.format(os.getenv("BENCH_METHOD"), os.getenv("BENCH_PATH"), headers,
      body ~= "" and body or nil)
    if keyed then
      local first, rest = request:match("^(.-\r\n)(.*)$")
      requests[#requests + 1] = { first .. "Idempotency-Key: " .. salt .. "-", "\r\n" .. rest }
    elseif counted then
      requests[#requests + 1] = { request:match("^(.*)1000000(.-)$") }
    else
      requests[#requests + 1] = request
    end
  end
end

local function batch_request()
  local parts = {}
  for number = 1, batch do
    key = key + 1
    parts[number] = '{"key":"' .. salt .. "-" .. key .. orders[number % #orders + 1]
  end
  local body = '{"orders":[' .. table.concat(parts, ",") .. "]}"
  return wrk.format(os.getenv("BENCH_METHOD"), os.getenv("BENCH_PATH"), batch_headers, body)
end

function request()
  if batch > 0 then return batch_request() end
  at = at % #requests + 1
  if counted then
    if at == 1 then number = number + 1 end
    return requests[at][1] .. number .. requests[at][2]
  end
  if not keyed then return requests[at] end
  key = key + 1
  return requests[at][1] .. key .. requests[at][2]
end

function done(summary, latency)
  io.write(string.format(
    '\n{"requests":%d,"micros":%d,"refused":%d,"broken":%d,"p50_us":%d,"p99_us":%d}\n',
    summary.requests, summary.duration, summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
