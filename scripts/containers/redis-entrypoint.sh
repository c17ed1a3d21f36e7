#!/bin/sh
# Does what the entry point of redis:7.4-bookworm does for an ordinary user: options go to
# redis-server.
set -e
case "${1:-}" in -* | *.conf) set -- redis-server "$@" ;; esac
[ "$1" != redis-server ] || umask 0077
exec "$@"
