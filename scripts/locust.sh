#!/usr/bin/env bash
# Locust against the calls of Traffic and Points: no request of any plan may fail, and `verify` finds
# nothing afterwards.
#
# PROFILE=debug  SECONDS_EACH=20
# PLANS: other plans, one a line: PLAN CLASS HOST_PATH [USERS [SPAWN_RATE]]. CLASS - is each class of
# the file. $TOKEN is an admin's token, for plans that read it.
set -euo pipefail
cd "$(dirname "$0")/.."

plans=${PLANS:-"locust/traffic.py TrafficUser /seeds/traffic 50 25
locust/traffic.py HighVolumeUser /seeds/traffic 10 10
locust/points.py PointsV1User /seeds/points 2 2
locust/points.py PointsV2User /seeds/points 10 10"}
. scripts/dev.sh
venv=$PWD/target/locust
[ -x "$venv/bin/locust" ] || { python3 -m venv "$venv" && "$venv/bin/pip" install -q locust==2.47.0; }
# Traffic's plans log in as user0 to user9999.
start --users 10000
TOKEN=$("$program" token --env-file "$env" --user-id 1 --role admin)
export TOKEN

# Prints a plan's line of the table. Locust's exit code tells failures, and not that nothing was asked.
summary() {
    python3 - "$@" <<'PYTHON'
import json, sys
plan, name, file = sys.argv[1:]
requests = json.load(open(file))
times = {}
for request in requests:
    for ms, count in request["response_times"].items():
        times[float(ms)] = times.get(float(ms), 0) + count
total = sum(request["num_requests"] for request in requests)
failed = sum(request["num_failures"] for request in requests)
if not total:
    sys.exit(f"{plan} asked nothing")
p95, seen = 0, 0
for p95 in sorted(times):
    seen += times[p95]
    if seen >= total * 0.95:
        break
print(f"| {plan} | {name} | {total} | {failed} | {p95:.0f} |")
sys.exit(1 if failed else 0)
PYTHON
}

echo "| plan | class | requests | failures | p95 ms |"
echo "|---|---|---|---|---|"
while read -r plan class path users rate; do
    [ -n "$plan" ] || continue
    [ "$class" != - ] || class=""
    # Locust reads keys from stdin, where the other plans stand.
    "$venv/bin/locust" -f "$plan" --host "http://$address$path" --headless --only-summary \
        --users "${users:-50}" --spawn-rate "${rate:-25}" --run-time "${SECONDS_EACH:-20}s" \
        --json-file "$work/result" --exit-code-on-error 1 ${class:+"$class"} \
        </dev/null >"$work/locust" 2>&1 || { cat "$work/locust"; exit 1; }
    summary "$plan" "${class:-all}" "$work/result.json"
done <<<"$plans"
"$program" verify --full --env-file "$env"
