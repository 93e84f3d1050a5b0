#!/bin/sh
# Writes the parts of the configuration that depend on the environment, and starts nginx.
set -euf

# ALLOWED_HOSTS: host names that requests may use besides localhost and IP addresses.
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

# TRUSTED_PROXIES: addresses of proxies in front of nginx. Their X-Forwarded-For and
# X-Forwarded-Proto are trusted.
trusted_proxies() {
    IFS=', '
    echo 'geo $realip_remote_addr $trusted_proxy {'
    echo '    default 0;'
    : >/tmp/real-ip.conf
    for network in ${TRUSTED_PROXIES:-}; do
        case $network in
            *[!0-9a-fA-F.:/]*)
                echo "nginx: TRUSTED_PROXIES=$TRUSTED_PROXIES: $network is not an address or a network" >&2
                return 1
                ;;
        esac
        echo "    $network 1;"
        echo "set_real_ip_from $network;" >>/tmp/real-ip.conf
    done
    echo '}'
    echo 'real_ip_header X-Forwarded-For;' >>/tmp/real-ip.conf
    echo 'real_ip_recursive on;' >>/tmp/real-ip.conf
}

# LOGIN: on, off or auto. With auto, login is on only if nginx is published beyond this machine.
login() {
    case ${BIND_ADDRESS:-127.0.0.1} in
        127.*.*.* | localhost | ::1 | '[::1]') here=yes ;;
        *) here=no ;;
    esac
    case ${LOGIN:-auto}-$here in
        on-* | auto-no)
            echo 'include /etc/nginx/parts/login.conf;'
            echo 'auth_request /login/check/program;' >/tmp/programs.conf
            ;;
        off-* | auto-yes)
            [ $here = yes ] || echo "nginx: everyone who reaches $BIND_ADDRESS can see all patients:" \
                "LOGIN=off" >&2
            echo 'set $user "";'
            : >/tmp/programs.conf
            ;;
        *)
            echo "nginx: LOGIN=$LOGIN: expected auto, on or off" >&2
            return 1
            ;;
    esac
    [ -n "${OIDC_PROXY:-}" ] || return 0
    case $OIDC_PROXY in
        *[!a-zA-Z0-9.:/-]* | *://*/*) ;;
        http://* | https://*)
            echo 'location /oauth2/ {'
            echo '    auth_request off;'
            echo "    set \$oidc_proxy $OIDC_PROXY;"
            echo '    proxy_pass $oidc_proxy;'
            echo '    include parts/proxy.conf;'
            echo '    proxy_set_header Host $http_host;'
            echo '}'
            return 0
            ;;
    esac
    echo "nginx: OIDC_PROXY=$OIDC_PROXY: expected http://HOST:PORT or https://HOST:PORT" >&2
    return 1
}

# LOG_FORMAT: text or json.
log_format() {
    case ${LOG_FORMAT:-text} in
        text | json) echo "include /etc/nginx/parts/log-${LOG_FORMAT:-text}.conf;" ;;
        *)
            echo "nginx: LOG_FORMAT=$LOG_FORMAT: expected text or json" >&2
            return 1
            ;;
    esac
}

services() {
    # valid=2s: Docker's resolver reports a time to live of 10 minutes, but a restarted container
    # may have another address at once.
    servers=$(awk '$1 == "nameserver" { print $2 ~ /:/ ? "[" $2 "]" : $2 }' /etc/resolv.conf)
    echo "resolver $(echo $servers) valid=2s ipv6=off;"
    echo "resolver_timeout 2s;"
    # nginx does not append search domains, but in Kubernetes the name of a service needs the domain
    # of its namespace.
    domain=$(awk '$1 == "search" && $2 ~ /\.svc\./ { print "." $2 }' /etc/resolv.conf)
    echo "map \"\" \$domain { default \"$domain\"; }"
    for service in modelapi:8000 dashboard:5002 login:5003; do
        name=${service%:*}
        # max_fails=0: there is only one address, so nginx must try it again at once.
        # keepalive_timeout: shorter than gunicorn's 75 s, so that nginx is the first to close.
        echo "upstream $name {"
        echo "    zone $name 128k;"
        echo "    server $name$domain:${service#*:} resolve max_fails=0;"
        echo "    keepalive 32;"
        echo "    keepalive_timeout 60s;"
        echo "}"
    done
}

hosts >/tmp/allowed-hosts
trusted_proxies >/tmp/trusted-proxies.conf
login >/tmp/login.conf
log_format >/tmp/log.conf
services >/tmp/services.conf
exec nginx -g 'daemon off;' "$@"
