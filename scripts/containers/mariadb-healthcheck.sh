#!/bin/sh
# Does what healthcheck.sh of mariadb:10.11 does with --connect --innodb_initialized: the server
# answers on its port, and InnoDB is there.
set -eu
found=$(mariadb --defaults-extra-file=/var/lib/mysql/.my-healthcheck.cnf --protocol=tcp -h 127.0.0.1 -N -B -e \
    "SELECT support FROM information_schema.engines WHERE engine = 'InnoDB'")
[ "$found" = DEFAULT ]
