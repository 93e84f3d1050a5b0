"""`python -m dashboard`: the ward page. Settings: see dashboard/settings.py."""

import logging
import os
import sys

from aiohttp import web

from dashboard.app import create_app
from dashboard.settings import SettingError, Settings


def main() -> int:
    try:
        settings = Settings.from_environment(os.environ)
    except SettingError as error:
        print(f"dashboard: {error}", file=sys.stderr)
        return 1
    logging.basicConfig(
        level=settings.log_level, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )
    try:
        web.run_app(
            create_app(settings),
            host=settings.host,
            port=settings.port,
            access_log=None,
            print=lambda _: logging.getLogger("dashboard").info(
                "http://%s:%d/", settings.host, settings.port
            ),
            # Open pages never end by themselves.
            shutdown_timeout=1,
        )
    except OSError as error:
        print(f"dashboard: DASHBOARD_PORT={settings.port}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
