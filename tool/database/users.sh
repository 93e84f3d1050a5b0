#!/bin/sh
# Prints the statements that make the database's users, with the passwords from
# /run/secrets. They can be run any number of times: rights are taken away first,
# so what stands here is what a user has.
#
#   tool        what the tool's statements need, and no more
#   dashboard   reads
#   root        from inside this container only, by its socket, without a password
set -eu

user() {
    password=$(cat "/run/secrets/$1/password")
    printf "CREATE USER IF NOT EXISTS %s@'%%' IDENTIFIED BY '%s';\n" "$1" "$password"
    printf "ALTER USER %s@'%%' IDENTIFIED BY '%s';\n" "$1" "$password"
    printf "REVOKE ALL PRIVILEGES, GRANT OPTION FROM %s@'%%';\n" "$1"
}

user tool
echo "GRANT SELECT, INSERT, UPDATE ON tooldb.* TO tool@'%';"
echo "GRANT DELETE ON tooldb.pending TO tool@'%';"
echo "GRANT DELETE ON tooldb.rejected TO tool@'%';"

user dashboard
echo "GRANT SELECT ON tooldb.* TO dashboard@'%';"
