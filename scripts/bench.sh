#!/usr/bin/env bash
# Redis-first orders beside the bare echo, the row-lock path and a pure-SQL order, in one run.
#
# SECONDS_EACH=8  ROUNDS=2  DURABILITY=everysec  PORT=8088  CONNECTIONS=128
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${SECONDS_EACH:-8}
rounds=${ROUNDS:-2}
durability=${DURABILITY:-everysec}
port=${PORT:-8088}
connections=${CONNECTIONS:-128}
# Nobody settles the held orders: all rounds together must stay below the backlog limit of a million.
held_seconds=$((10 / rounds))
[ "$held_seconds" -lt "$seconds" ] || held_seconds=$seconds
program=target/release/stock-online
work=$(mktemp -d)
running=()
trap 'for pid in "${running[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done; wait || true; rm -rf "$work"' EXIT

cat >"$work/order.lua" <<'LUA'
local tokens, lines = {}, {}
for line in io.lines(os.getenv("TOKENS")) do tokens[#tokens + 1] = line:match(",(.*)") end
local count = tonumber(os.getenv("LINES_EACH") or "1")
for i = 1, count do lines[i] = '{"productId":' .. i .. ',"quantity":1}' end
local body = '{"orderProducts":[' .. table.concat(lines, ",") .. '],"totalAmount":'
  .. 1000 * count .. ',"deliveryType":"ONLINE"}'
local requests, at = {}, 0
function init()
  for i = 1, #tokens do
    requests[i] = wrk.format("POST", os.getenv("ORDER_PATH"),
      { ["Authorization"] = "Bearer " .. tokens[i], ["Content-Type"] = "application/json" }, body)
  end
end
function request()
  at = at % #requests + 1
  return requests[at]
end
LUA

start() { # folder, port, further arguments
    local folder=$1 at=$2
    shift 2
    $program dev --fresh --data-dir "$folder" --port "$at" --durability "$durability" --stock 900000000 "$@" \
        >"$folder.out" 2>"$folder.err" &
    running+=($!)
    until curl -fsS "http://127.0.0.1:$at/readyz" >/dev/null 2>&1; do sleep 0.1; done
}
rate() { awk '/Requests\/sec/ { print $2 } /Non-2xx/ { print "ERRORS " $0 > "/dev/stderr" }'; }
load() { ORDER_PATH=$2 wrk -t1 -c"$connections" -d"${3:-$seconds}s" -s "$work/order.lua" "http://127.0.0.1:$1" | rate; }
lag() { curl -fsS "http://127.0.0.1:$1/metrics" | awk '$1 == "stock_journal_lag_'"$2"'" { print $2 }'; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", a / b }'; }

start "$work/sustained" "$port"
start "$work/held" $((port + 1)) --roles http
$program token --env-file "$work/sustained/env" --user-id 1 --count 100 --csv >"$work/tokens.csv"
$program token --env-file "$work/held/env" --user-id 1 --count 100 --csv >"$work/held.csv"
# A warm-up that no figure counts.
for at in "$port" $((port + 1)); do
    tokens=$work/tokens.csv
    [ "$at" = "$port" ] || tokens=$work/held.csv
    TOKENS=$tokens load "$at" /api/redis/orders 2 >/dev/null
done
PORT=$((port + 2)) target/release/examples/echo &
running+=($!)
sleep 0.5
export TOKENS=$work/tokens.csv

echo "| round | what | orders/s | of echo |"
echo "|---|---|---|---|"
for round in $(seq "$rounds"); do
    echo=$(load $((port + 2)) /)
    echo "| $round | bare echo | $echo | 1.00 |"
    held=$(TOKENS=$work/held.csv load $((port + 1)) /api/redis/orders "$held_seconds")
    echo "| $round | redis first, subscriber held | $held | $(ratio "$held" "$echo") |"
    sustained=$(load "$port" /api/redis/orders)
    echo "| $round | redis first, mysql keeping up | $sustained | $(ratio "$sustained" "$echo") |"
    echo "| $round | lag then, seconds | $(lag "$port" seconds) | |"
    until [ "$(lag "$port" entries)" = 0 ]; do sleep 0.2; done
    three=$(LINES_EACH=3 load "$port" /api/redis/orders)
    echo "| $round | three lines, mysql keeping up | $three | $(ratio "$three" "$echo") |"
    until [ "$(lag "$port" entries)" = 0 ]; do sleep 0.2; done
    lock=$(load "$port" /api/orders)
    echo "| $round | row lock | $lock | redis first is $(ratio "$sustained" "$lock") x |"
    until [ "$(lag "$port" entries)" = 0 ]; do sleep 0.2; done
done
sql=$(target/release/examples/row_lock "$seconds" 16)
echo "| - | pure SQL, one hot row | $sql | redis first is $(ratio "$sustained" "$sql") x |"

# The subscriber alone: what it settles of the orders that were held.
before=$(lag $((port + 1)) entries)
began=$(date +%s.%N)
STOCK_HTTP_ADDR=127.0.0.1:$((port + 3)) $program serve --env-file "$work/held/env" --roles subscriber 2>"$work/subscriber.err" &
running+=($!)
until [ "$(lag $((port + 1)) entries)" = 0 ]; do sleep 0.1; done
ended=$(date +%s.%N)
awk -v n="$before" -v a="$began" -v b="$ended" 'BEGIN { printf "| - | subscriber drain of %d | %d | |\n", n, n / (b - a) }'
$program verify --full --env-file "$work/sustained/env"
$program verify --full --env-file "$work/held/env"
