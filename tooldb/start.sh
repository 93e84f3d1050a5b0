#!/bin/sh
# Starts the server, and sets its users to those of this image. MySQL's entry point would do so only
# if the data folder is empty. The service `migrate` creates the tables.
set -eu
umask 077

{
    # Not in the binary log, because each server has passwords of its own, also a replica.
    echo "SET sql_log_bin = 0;"
    echo "CREATE DATABASE IF NOT EXISTS tooldb;"
    echo "USE tooldb;"
    users.sh
} >/run/mysqld/tooldb.sql

# The health check uses this file. It logs in over the network like the tool. While the server runs
# the init scripts, it has no network, so it is not healthy yet.
printf '[client]\nprotocol=tcp\nuser=tool\npassword=%s\n' \
    "$(cat /run/secrets/tool/password)" >/run/mysqld/health.cnf

# root can connect only through the socket in this container, so it needs no password.
export MYSQL_ALLOW_EMPTY_PASSWORD=yes MYSQL_ROOT_HOST=localhost MYSQL_INITDB_SKIP_TZINFO=yes

if [ -d /var/lib/mysql/mysql ]; then
    set -- "$@" --init-file=/run/mysqld/tooldb.sql
fi
exec docker-entrypoint.sh "$@"
