#!/bin/sh
# As that of redis:7.4-bookworm for an ordinary user: options are those of redis-server.
set -e
case "${1:-}" in -* | *.conf) set -- redis-server "$@" ;; esac
[ "$1" != redis-server ] || umask 0077
exec "$@"
