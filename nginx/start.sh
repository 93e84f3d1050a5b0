#!/bin/sh
# ALLOWED_HOSTS: names that users may ask by, besides localhost and IP addresses.
set -euf
IFS=', '
for name in ${ALLOWED_HOSTS:-}; do
    case $name in
        *[!a-zA-Z0-9.-]*)
            echo "nginx: ALLOWED_HOSTS=$ALLOWED_HOSTS: $name is not a host's name" >&2
            exit 1
            ;;
    esac
    echo "$name 0;"
done >/tmp/allowed-hosts
exec nginx -g 'daemon off;' "$@"
