"""`python -m dashboard`: the ward page. Settings: see dashboard/settings.py."""

import logging
import os
import sys

from aiohttp import web
from pythonjsonlogger.json import JsonFormatter

from dashboard.app import create_app
from dashboard.settings import SettingError, Settings


def set_up_logging(settings: Settings) -> None:
    """To stderr. As JSON, a line is an object with time, level, service, logger and message."""
    handler = logging.StreamHandler()
    if settings.log_format == "json":
        handler.setFormatter(
            JsonFormatter(
                "{levelname}{name}{message}",
                style="{",
                rename_fields={"levelname": "level", "name": "logger"},
                static_fields={"service": "dashboard"},
                timestamp="time",
            )
        )
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=settings.log_level, handlers=[handler])


def main() -> int:
    try:
        settings = Settings.from_environment(os.environ)
    except SettingError as error:
        print(f"dashboard: {error}", file=sys.stderr)
        return 1
    set_up_logging(settings)
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
