# For scripts that run against a service of their own; they source this file from the top folder.
#
# PROFILE=debug
program=$PWD/target/${PROFILE:-debug}/stock-online
work=$(mktemp -d)
env=$work/data/env
dev=""
trap 'if [ -n "$dev" ]; then kill -TERM "$dev" 2>/dev/null || true; wait "$dev" || true; fi; rm -rf "$work"' EXIT

# start ARGUMENT…: starts `dev` with its data in $work, waits until it is ready, and sets $address.
start() {
    rm -f "$env"
    "$program" dev --data-dir "$work/data" --port 0 "$@" >"$work/out" 2>"$work/err" &
    dev=$!
    for _ in $(seq 600); do
        address=$(sed -n 's/^STOCK_HTTP_ADDR=//p' "$env" 2>/dev/null || true)
        if [ -n "$address" ] && curl -fsS "http://$address/readyz" >/dev/null 2>&1; then return; fi
        kill -0 "$dev" || { cat "$work/err"; exit 1; }
        sleep 0.1
    done
    cat "$work/err"
    exit 1
}
