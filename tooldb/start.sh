#!/bin/sh
# Starts the server with the users of this image, also on data from an earlier image: the
# entry point of MySQL runs its init scripts on an empty folder only. The service `migrate` creates
# the tables.
set -eu
umask 077

{
    echo "CREATE DATABASE IF NOT EXISTS tooldb;"
    echo "USE tooldb;"
    users.sh
} >/run/mysqld/tooldb.sql

# For the health check, which logs in over the network like the tool. The server that runs the init
# scripts has no network, so it never counts as healthy.
printf '[client]\nprotocol=tcp\nuser=tool\npassword=%s\n' \
    "$(cat /run/secrets/tool/password)" >/run/mysqld/health.cnf

# root exists on the socket in this container only, so it needs no password.
export MYSQL_ALLOW_EMPTY_PASSWORD=yes MYSQL_ROOT_HOST=localhost MYSQL_INITDB_SKIP_TZINFO=yes

if [ -d /var/lib/mysql/mysql ]; then
    set -- "$@" --init-file=/run/mysqld/tooldb.sql
fi
exec docker-entrypoint.sh "$@"
