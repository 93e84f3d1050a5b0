"""`python -m dashboard`: serves the pages."""

import logging
import sys

from aiohttp import web

from dashboard.app import create_app
from dashboard.settings import Settings
from wire import command_line, logs
from wire.summary import Summary


def main() -> int:
    settings = command_line.settings(
        "dashboard", "Serves the ward, patient, pipeline and model pages.", Settings
    )
    logs.set_up("dashboard", settings.log_level, settings.log_format)
    log = logging.getLogger("dashboard")
    current = {
        "icu_dashboard_patients": "patients in the ICU",
        "icu_dashboard_open_pages": "open pages",
    }
    try:
        with Summary(log, {"icu_dashboard_round_seconds_count": "rounds"}, current):
            web.run_app(
                create_app(settings),
                host=settings.host,
                port=settings.port,
                access_log=None,
                print=lambda _: log.info("http://%s:%d/", settings.host, settings.port),
                # Short, because the connections of open pages never end by themselves.
                shutdown_timeout=1,
            )
    except OSError as error:
        print(f"dashboard: DASHBOARD_PORT={settings.port}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
