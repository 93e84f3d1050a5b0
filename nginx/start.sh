#!/bin/sh
# Writes the parts of the configuration that depend on the environment, and starts nginx.
set -euf

# ALLOWED_HOSTS: allowed host names, besides localhost and IP addresses.
hosts() {
    IFS=', '
    for name in ${ALLOWED_HOSTS:-}; do
        case $name in
            *[!a-zA-Z0-9.-]*)
                echo "nginx: ALLOWED_HOSTS=$ALLOWED_HOSTS: $name is not a host's name" >&2
                return 1
                ;;
        esac
        echo "$name 0;"
    done
}

services() {
    # Docker's resolver reports a time to live of 10 minutes, but a new container has another
    # address at once.
    servers=$(awk '$1 == "nameserver" { print $2 ~ /:/ ? "[" $2 "]" : $2 }' /etc/resolv.conf)
    echo "resolver $(echo $servers) valid=2s ipv6=off;"
    echo "resolver_timeout 2s;"
    # nginx does not append search domains, and in Kubernetes names need the namespace's.
    domain=$(awk '$1 == "search" && $2 ~ /\.svc\./ { print "." $2 }' /etc/resolv.conf)
    echo "map \"\" \$domain { default \"$domain\"; }"
    for service in modelapi:8000 dashboard:5002; do
        name=${service%:*}
        # max_fails: with one address, nginx must try it again at once.
        # keepalive_timeout: shorter than gunicorn's 75 s, so that nginx closes first.
        echo "upstream $name {"
        echo "    zone $name 128k;"
        echo "    server $name$domain:${service#*:} resolve max_fails=0;"
        echo "    keepalive 32;"
        echo "    keepalive_timeout 60s;"
        echo "}"
    done
}

hosts >/tmp/allowed-hosts
services >/tmp/services.conf
exec nginx -g 'daemon off;' "$@"
