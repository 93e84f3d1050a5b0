#!/bin/sh
# Starts the server with tables and users as this image has them, also on data
# that an earlier one has left: the image's own init scripts run on an empty
# folder only.
set -eu
umask 077

{
    echo "CREATE DATABASE IF NOT EXISTS tooldb;"
    echo "USE tooldb;"
    cat /usr/local/share/tooldb/init.sql
    users.sh
} >/run/mysqld/tooldb.sql

# For the health check: logs in over the network, as the tool does. The server that
# runs the init scripts has none, so it never counts as healthy.
printf '[client]\nprotocol=tcp\nuser=tool\npassword=%s\n' \
    "$(cat /run/secrets/tool/password)" >/run/mysqld/health.cnf

# root exists on the socket in this container only, so it needs no password.
export MYSQL_ALLOW_EMPTY_PASSWORD=yes MYSQL_ROOT_HOST=localhost MYSQL_INITDB_SKIP_TZINFO=yes

if [ -d /var/lib/mysql/mysql ]; then
    set -- "$@" --init-file=/run/mysqld/tooldb.sql
fi
exec docker-entrypoint.sh "$@"
