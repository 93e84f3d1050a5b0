"""The metrics of the login service."""

from prometheus_client import Counter, disable_created_metrics

# Omits the unused `_created` series of each counter.
disable_created_metrics()  # type: ignore[no-untyped-call]

ATTEMPTS = Counter("icu_login_attempts_total", "Attempts to log in, by result", ["result"])
CHECKS = Counter(
    "icu_login_checks_total",
    "Checks of requests for nginx, by status of the answer",
    ["status"],
)

for result in ("success", "failure", "locked_out"):
    ATTEMPTS.labels(result)
for status in ("204", "401", "503"):
    CHECKS.labels(status)
