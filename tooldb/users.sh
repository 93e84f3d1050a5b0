#!/bin/sh
# Prints the statements that create the database's users, with the passwords from /run/secrets. They
# can run at every start: they first revoke all rights, so that a user has exactly the rights below.
#
#   migrator    creates and changes tables, and deletes forgotten stays
#   tool        reads and writes rows; deletes rows of some tables
#   dashboard   reads
#   modelapi    keeps the champion of several replicas; only if there is a password for it
#   root        from inside this container only, by its socket, without a password
set -eu

user() {
    password=$(cat "/run/secrets/$1/password")
    printf "CREATE USER IF NOT EXISTS %s@'%%' IDENTIFIED BY '%s';\n" "$1" "$password"
    printf "ALTER USER %s@'%%' IDENTIFIED BY '%s';\n" "$1" "$password"
    printf "REVOKE ALL PRIVILEGES, GRANT OPTION FROM %s@'%%';\n" "$1"
}

user migrator
echo "GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, CREATE VIEW"
echo "    ON tooldb.* TO migrator@'%';"

user tool
echo "GRANT SELECT, INSERT, UPDATE ON tooldb.* TO tool@'%';"
for table in pending rejected readings vitals; do
    # Before the first migration the table is missing. MySQL grants a right on a missing
    # table only together with CREATE.
    echo "GRANT CREATE, DELETE ON tooldb.$table TO tool@'%';"
    echo "REVOKE CREATE ON tooldb.$table FROM tool@'%';"
done

if [ -r /run/secrets/modelapi/password ]; then
    user modelapi
    # modelapi creates its table itself.
    echo "GRANT CREATE, SELECT, INSERT ON tooldb.model_changes TO modelapi@'%';"
fi

user dashboard
echo "GRANT SELECT ON tooldb.* TO dashboard@'%';"
