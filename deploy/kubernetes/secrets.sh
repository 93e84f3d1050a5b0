#!/bin/sh
# Prints Secrets with new passwords, under the file names that docker-compose.yml uses:
#   ./secrets.sh | kubectl create --namespace hospital --filename -
# `create` does not change Secrets that exist.
set -eu

secret() { printf -- '---\napiVersion: v1\nkind: Secret\nmetadata: {name: %s}\nstringData:\n' "$1"; }

acl=
for user in redis buffer migrator tool modelapi dashboard; do
    password=$(head -c 24 /dev/urandom | od -An -v -tx1 | tr -d ' \n')
    secret "$user"
    echo "  password: $password"
    hash=$(printf %s "$password" | sha256sum | cut -d ' ' -f 1)
    case $user in
        redis) acl="user default on #$hash ~* &* +@all" ;;
        buffer | tool)
            acl="$acl
    user $user on #$hash ~icu:* ~rq:* resetchannels -@all +@read +@write +@connection\
 +@transaction -@admin -@dangerous -function +eval +evalsha +script|load +script|exists\
 +info +client|list +client|setinfo +client|setname"
            ;;
        dashboard)
            acl="$acl
    user $user on #$hash %R~icu:* %R~rq:* resetchannels -@all +ping +hello +auth +select\
 +client|setinfo +client|setname +multi +exec +info +exists +get +getrange +hget +hgetall +hmget +llen\
 +lrange +mget +scard +smembers +ttl +type +zcard +zrange"
            ;;
    esac
done
secret redis-acl
printf '  users.acl: |\n    %s\n' "$acl"
