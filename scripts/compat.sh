#!/usr/bin/env bash
# The integration tests on other servers: Redis 8, Valkey and MySQL 9 from Debian sid, unpacked into
# a folder and run through that folder's own loader. Needs debootstrap and the right to use it;
# nothing is installed.
#
# COMPAT=target/compat  MIRROR=http://deb.debian.org/debian
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$PWD/${COMPAT:-target/compat}
root=$folder/sid
machine=$(uname -m)-linux-gnu
if [ ! -x "$root/usr/sbin/mysqld" ]; then
    mkdir -p "$folder"
    debootstrap --variant=minbase --include=mysql-server-core,redis-server,valkey-server \
        sid "$root" "${MIRROR:-http://deb.debian.org/debian}" >"$folder/debootstrap.log"
fi
mkdir -p "$folder/bin"
libraries=$root/usr/lib/$machine:$root/usr/lib/$machine/mysql/private:$root/usr/lib/mysql/private

first() { for file in "$@"; do if [ -x "$file" ]; then echo "$file"; return; fi; done; }
loader=$(first "$root"/lib64/ld-linux-*.so.* "$root"/lib/ld-linux-*.so.*)

# wrap NAME FURTHER_ARGUMENTS: a program of the folder, with its own libraries.
wrap() {
    printf '#!/bin/sh\nexec %s --library-path %s %s "$@" %s\n' "$loader" "$libraries" \
        "$(first "$root/usr/sbin/$1" "$root/usr/bin/$1")" "${2:-}" >"$folder/bin/$1"
    chmod +x "$folder/bin/$1"
}
wrap mysqld "--lc-messages-dir=$root/usr/share/mysql --character-sets-dir=$root/usr/share/mysql/charsets"
wrap redis-server
wrap valkey-server

run() { # what, then variables
    echo "== $1"
    shift
    env "$@" cargo test -p stock-online --test it --locked
}
run "Redis 8" REDIS_SERVER="$folder/bin/redis-server"
run "Valkey" REDIS_SERVER="$folder/bin/valkey-server"
run "MySQL 9" MYSQL_SERVER="$folder/bin/mysqld"
