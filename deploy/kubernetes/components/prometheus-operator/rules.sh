#!/bin/sh
# Prints prometheus/rules.yml and alerts.yml as resources of the Prometheus operator.
set -eu
cd "$(dirname "$0")/../../../../prometheus"
for name in rules alerts; do
    printf -- '---\napiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\n'
    printf 'metadata: {name: icu-stream-%s}\nspec:\n' "$name"
    sed 's/^/  /' "$name.yml"
done
