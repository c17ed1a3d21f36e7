#!/bin/sh
# Dumps a database while it is in use, and notes the dump's position in the binary log.
#
#   sh scripts/backup.sh DATABASE FILE [client options: --host= --port= --user= …]
#
# The server must write a binary log by row: --log-bin --binlog-format=ROW --sync-binlog=1. Keep its
# files as long as the dump: scripts/restore.sh replays them.
set -eu

[ $# -ge 2 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
database=$1 file=$2
shift 2

if command -v mariadb-dump >/dev/null; then
    dump=mariadb-dump place=--master-data=2
else
    dump=mysqldump place=--source-data=2
fi
# One snapshot of all tables: watermark, accounts, journal and orders belong together.
"$dump" "$@" --single-transaction "$place" "$database" >"$file.part"
mv "$file.part" "$file"
grep -m 1 -E 'CHANGE (MASTER|REPLICATION SOURCE) TO' "$file" | sed 's/^-- //'
