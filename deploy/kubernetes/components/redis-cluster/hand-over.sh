#!/bin/sh
# A primary hands over to its replica before it stops. It waits until the replica has everything, so
# that a planned restart loses nothing and fences no shard. A primary that cannot hand over stops
# all the same: its disk has everything that it accepted.
#
# OWN=127.0.0.1:6379  PATIENCE_SECONDS=20  REDISCLI_AUTH (optional)
set -eu

own=${OWN:-127.0.0.1:6379}

own_cli() { redis-cli -h "${own%:*}" -p "${own##*:}" "$@"; }

role() { own_cli role | head -n 1 | tr -d '\r'; }

[ "$(role)" = master ] || exit 0
id=$(own_cli cluster myid | tr -d '\r"')
# `<id> <ip:port@bus,host> <flags> <primary> … <link> …`: a connected replica of this node.
replica=$(own_cli cluster nodes | tr -d '\r' |
    awk -v id="$id" '$4 == id && $3 == "slave" && $8 == "connected" { sub(/@.*/, "", $2); print $2; exit }')
if [ -z "$replica" ]; then
    echo "hand-over: nobody follows"
    exit 0
fi
redis-cli -h "${replica%:*}" -p "${replica##*:}" cluster failover
for _ in $(seq "${PATIENCE_SECONDS:-20}"); do
    if [ "$(role)" = slave ]; then
        echo "hand-over: $replica is the primary"
        exit 0
    fi
    sleep 1
done
echo "hand-over: $replica did not take over"
