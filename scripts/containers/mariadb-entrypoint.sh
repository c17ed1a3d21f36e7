#!/bin/bash
# Does what the Compose files need from the entry point of mariadb:10.11. On an empty folder it
# makes the database, its user and the user of healthcheck.sh, on a server without a network. Then
# it starts the server.
set -euo pipefail

case "${1:-}" in -* | "") set -- mariadbd "$@" ;; esac
data=/var/lib/mysql
socket=/run/mysqld/mysqld.sock
if [ "$1" = mariadbd ] && [ ! -d "$data/mysql" ]; then
    : "${MARIADB_RANDOM_ROOT_PASSWORD:?one of the options of a root password}"
    mariadb-install-db --datadir="$data" --rpm --auth-root-authentication-method=normal --skip-test-db \
        --skip-log-bin >&2
    "$@" --skip-networking --socket="$socket" &
    server=$!
    sql() { mariadb --protocol=socket -uroot -hlocalhost --socket="$socket" "$@"; }
    for _ in $(seq 60); do if sql -e 'SELECT 1' >/dev/null 2>&1; then break; fi; sleep 0.5; done
    password=$(pwgen -1 32)
    sql <<SQL
SET @@SESSION.SQL_LOG_BIN = 0;
CREATE USER healthcheck@localhost IDENTIFIED BY '$password', healthcheck@127.0.0.1 IDENTIFIED BY '$password';
CREATE DATABASE \`$MARIADB_DATABASE\`;
CREATE USER '$MARIADB_USER'@'%' IDENTIFIED BY '$MARIADB_PASSWORD';
GRANT ALL ON \`$MARIADB_DATABASE\`.* TO '$MARIADB_USER'@'%';
SET PASSWORD FOR root@localhost = PASSWORD('$(pwgen -1 32)');
SQL
    (umask 0077 && printf '[mariadb-client]\nuser=healthcheck\npassword=%s\n' "$password" >"$data/.my-healthcheck.cnf")
    kill "$server"
    wait "$server"
fi
exec "$@"
