#!/bin/sh
# Restores a dump of scripts/backup.sh into a new database, and replays the binary log after it
# up to a point in time.
#
#   sh scripts/restore.sh DATABASE FILE LOGS UNTIL [client options: --host= --port= --user= …]
#
# LOGS   the folder with the old server's binary logs, copied away from it first
# UNTIL  "2026-11-21 10:15:00", the server's local time: the log before it is replayed; "end": all
#
# Stop every instance of the service first. Afterwards run `stock-online doctor`; if it reports a
# fenced Redis, run `stock-online recover`; then `stock-online verify --full`.
set -eu

[ $# -ge 4 ] || { sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2; }
database=$1 file=$2 logs=$3 until=$4
shift 4

if command -v mariadb >/dev/null; then
    client=mariadb reader=mariadb-binlog
else
    client=mysql reader=mysqlbinlog
fi
place=$(grep -m 1 -E 'CHANGE (MASTER|REPLICATION SOURCE) TO' "$file")
first=$(echo "$place" | sed "s/.*LOG_FILE='\([^']*\)'.*/\1/")
position=$(echo "$place" | sed 's/.*LOG_POS=\([0-9]*\).*/\1/')

"$client" "$@" -e "CREATE DATABASE \`$database\` CHARACTER SET utf8mb4"
"$client" "$@" "$database" <"$file"

# The logs from the dump's log on, in their order.
set -- "$@" --
behind=""
for log in "$logs"/"${first%.*}".[0-9]*; do
    [ "$(basename "$log")" = "$first" ] && behind=yes
    [ -n "$behind" ] && set -- "$@" "$log"
done
options=""
while [ "$1" != -- ]; do
    options="$options '$1'"
    shift
done
shift
[ $# -gt 0 ] || { echo "$logs has no $first" >&2; exit 1; }
[ "$until" = end ] || set -- --stop-datetime="$until" "$@"
"$reader" --database="$database" --start-position="$position" "$@" | eval "$client $options"
