#!/bin/sh
# Makes one Redis Cluster of the nodes, once: the first nodes become primaries, the rest their
# replicas. A second run changes nothing.
#
# NODES="host:port host:port …"  REPLICAS=1  PATIENCE_SECONDS=300  REDISCLI_AUTH (optional)
set -eu

replicas=${REPLICAS:-1}
patience=${PATIENCE_SECONDS:-300}
began=$(date +%s)

say() { echo "create: $*"; }

too_late() { [ $(($(date +%s) - began)) -ge "$patience" ]; }

# at NODE COMMAND…: asks one node.
at() {
    node=$1
    shift
    redis-cli -h "${node%:*}" -p "${node##*:}" "$@"
}

# field NODE NAME: one line of CLUSTER INFO.
field() { at "$1" cluster info 2>/dev/null | tr -d '\r' | sed -n "s/^$2://p"; }

all_answer() {
    for node in $NODES; do
        [ "$(at "$node" ping 2>/dev/null)" = PONG ] || return 1
    done
}

# Whether a node belongs to a cluster, or to the beginning of one.
is_begun() {
    for node in $NODES; do
        [ "$(field "$node" cluster_known_nodes)" = 1 ] || return 0
        [ "$(field "$node" cluster_slots_assigned)" = 0 ] || return 0
    done
    return 1
}

# Whether every node sees all the others, all slots and a replica for each primary.
is_whole() {
    count=$(echo "$NODES" | wc -w)
    primaries=$((count / (replicas + 1)))
    for node in $NODES; do
        [ "$(field "$node" cluster_state)" = ok ] || return 1
        [ "$(field "$node" cluster_slots_ok)" = 16384 ] || return 1
        [ "$(field "$node" cluster_known_nodes)" = "$count" ] || return 1
        [ "$(field "$node" cluster_size)" = "$primaries" ] || return 1
    done
    for node in $NODES; do
        is_followed "$node" || return 1
    done
}

# Whether a primary has a replica in step, or a replica its primary.
is_followed() {
    replication=$(at "$1" info replication 2>/dev/null | tr -d '\r')
    case "$replication" in
    *role:master*) echo "$replication" | grep -q '^slave[0-9]*:.*state=online' ;;
    *) echo "$replication" | grep -q '^master_link_status:up' ;;
    esac
}

are_empty() {
    for node in $NODES; do
        [ "$(at "$node" dbsize 2>/dev/null)" = 0 ] || return 1
    done
}

# The address of a name: nodes are introduced to each other by address.
address() {
    found=$(getent ahostsv4 "${1%:*}" | awk '{ print $1; exit }')
    [ -n "$found" ] && echo "$found:${1##*:}"
}

wait_for() {
    until "$1"; do
        if too_late; then
            say "gave up after $patience s: $2"
            return 1
        fi
        sleep 1
    done
}

wait_for all_answer "not every node answers"
if is_begun; then
    # Nodes that just came back need a moment to find each other.
    settled=$(($(date +%s) + ${SETTLE_SECONDS:-30}))
    until is_whole || [ "$(date +%s)" -ge "$settled" ]; do sleep 1; done
    if is_whole; then
        say "the cluster is there"
        exit 0
    fi
    if ! are_empty; then
        say "the cluster holds data and is not whole: nothing is done; see docs/deployment.md"
        exit 1
    fi
    # The run before was cut off. No node has a key: nothing can be lost by beginning anew.
    say "a half-made cluster without data: begun anew"
    for node in $NODES; do at "$node" cluster reset hard >/dev/null; done
fi

addresses=""
for node in $NODES; do addresses="$addresses $(address "$node")"; done
# shellcheck disable=SC2086 # a list of addresses
redis-cli --cluster create $addresses --cluster-replicas "$replicas" --cluster-yes
wait_for is_whole "the nodes do not agree"
say "the cluster is made"
