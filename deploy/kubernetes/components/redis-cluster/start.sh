#!/bin/sh
# Starts one node under the addresses of this pod.
#
# POD_IP and NODE_HOST, REDIS_PASSWORD (optional), REDIS_CONF
set -eu

# The password comes by standard input, because other users can see the arguments of a process.
settings=""
if [ -n "${REDIS_PASSWORD:-}" ]; then
    quoted=$(printf '%s' "$REDIS_PASSWORD" | sed 's/[\\"]/\\&/g')
    settings="requirepass \"$quoted\"
masterauth \"$quoted\""
fi
exec redis-server "${REDIS_CONF:-/etc/redis/redis.conf}" \
    --cluster-announce-ip "$POD_IP" --cluster-announce-hostname "$NODE_HOST" - <<SETTINGS
$settings
SETTINGS
