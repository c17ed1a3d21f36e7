#!/bin/sh
# The image's program is built with `protected-mode no` as its default; Debian's is not.
case "${1:-}" in
-* | "") exec /usr/bin/redis-server --protected-mode no "$@" ;;
esac
conf=$1
shift
exec /usr/bin/redis-server "$conf" --protected-mode no "$@"
