#!/bin/sh
# Introduces the nodes to each other again when their addresses have changed.
#
# A node finds the others by the addresses that it wrote down. When all pods restart at once, as
# after a power cut, each has a new address that nobody knows, and every node waits for ever. Their
# names stay the same, so this script looks the names up.
#
# NODES="host:port host:port …"  OWN=127.0.0.1:6379  PAUSE_SECONDS=5  REDISCLI_AUTH (optional)
set -eu

own=${OWN:-127.0.0.1:6379}

own_cli() { redis-cli -h "${own%:*}" -p "${own##*:}" "$@"; }

# One pass over all names.
step() {
    known=$(own_cli cluster nodes 2>/dev/null | tr -d '\r') || return 0
    # A node without others does not belong to a cluster yet; create.sh handles that.
    [ "$(echo "$known" | grep -c .)" -gt 1 ] || return 0
    # The ids of nodes whose link is down: `<id> <address> <flags> … <link> …`.
    lost=$(echo "$known" | awk '$3 !~ /myself/ && $8 == "disconnected" { print $1 }')
    [ -n "$lost" ] || return 0
    for node in $NODES; do
        host=$(getent ahostsv4 "${node%:*}" | awk '{ print $1; exit }')
        [ -n "$host" ] || continue
        id=$(timeout 2 redis-cli -h "$host" -p "${node##*:}" cluster myid 2>/dev/null | tr -d '\r"') || continue
        # Only lost nodes are met: a node of another cluster at that address is left alone, so that
        # two clusters never become one.
        case "$lost" in
        *"$id"*) [ ${#id} -eq 40 ] && own_cli cluster meet "$host" "${node##*:}" >/dev/null && echo "meet: $node is at $host" ;;
        esac
    done
}

while :; do
    step || true
    sleep "${PAUSE_SECONDS:-5}"
done
