#!/bin/sh
# Prints the statements that create the users of the database, with the passwords in /run/secrets.
# The statements can run at every start: they first revoke all rights of a user, so that the user has
# exactly the rights below.
#
#   migrator    creates and changes tables, and deletes stays (python -m tool forget)
#   tool        reads and writes rows; deletes rows of some tables
#   dashboard   reads
#   modelapi    stores which model is the champion of all replicas; exists only if it has a password
#   root        connects without a password, but only through the socket in this container
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
for table in outbox pending readings rejected vitals; do
    # Before the first migration, the table does not exist. MySQL grants rights on such a table only
    # together with CREATE.
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
