"""How hospital and its child processes log: for people, or as JSON for programs."""

import logging

from pythonjsonlogger.json import JsonFormatter

from hospital.settings import Settings


def set_up_logging(settings: Settings) -> None:
    """To stderr. As JSON, a line is an object with time, level, service, logger and message."""
    handler = logging.StreamHandler()
    if settings.log_format == "json":
        handler.setFormatter(
            JsonFormatter(
                "{levelname}{name}{message}",
                style="{",
                rename_fields={"levelname": "level", "name": "logger"},
                static_fields={"service": "hospital"},
                timestamp="time",
            )
        )
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s hospital: %(message)s"))
    logging.basicConfig(level=settings.log_level, handlers=[handler])
