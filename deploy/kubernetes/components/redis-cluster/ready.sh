#!/bin/sh
# Whether this node is well: it answers, and if it is a replica, it is in step. The next node of a
# rolling update waits for that.
#
# OWN=127.0.0.1:6379  REDISCLI_AUTH (optional)
set -eu

own=${OWN:-127.0.0.1:6379}

own_cli() { redis-cli -h "${own%:*}" -p "${own##*:}" "$@"; }

[ "$(own_cli ping)" = PONG ]
replication=$(own_cli info replication | tr -d '\r')
case "$replication" in
*role:master*) ;;
*) echo "$replication" | grep -q '^master_link_status:up' ;;
esac
