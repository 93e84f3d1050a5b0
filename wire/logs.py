"""Sets up logging for all services, as text or JSON."""

import logging
from typing import Any

from pythonjsonlogger.json import JsonFormatter

TEXT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


def json_lines(service: str) -> dict[str, Any]:
    """Arguments of JsonFormatter for the fields `time`, `level`, `service`, `logger`, `message` and
    extras.
    """
    return {
        "fmt": "{levelname}{name}{message}",
        "style": "{",
        "rename_fields": {"levelname": "level", "name": "logger"},
        "static_fields": {"service": service},
        "timestamp": "time",
    }


def set_up(service: str, level: str = "INFO", format: str = "text") -> None:
    """Sends all loggers to stderr. `format` is `text` or `json`."""
    handler = logging.StreamHandler()
    as_json = format == "json"
    handler.setFormatter(
        JsonFormatter(**json_lines(service)) if as_json else logging.Formatter(TEXT)
    )
    logging.basicConfig(level=level, handlers=[handler])
    # At INFO it names the authentication plugin of each connection.
    logging.getLogger("mysql.connector").setLevel(logging.WARNING)
