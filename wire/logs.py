"""Sets up logging for all services, as text or JSON."""

import logging

from pythonjsonlogger.json import JsonFormatter

TEXT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


# Characters that could start a new line or control a terminal.
ESCAPES = {code: ascii(chr(code))[1:-1] for code in (*range(32), *range(127, 160), 0x2028, 0x2029)}


class OneLine(logging.Formatter):
    """Escapes the control characters of a message, so that its text cannot forge another log line.

    >>> record = logging.makeLogRecord({"levelname": "INFO", "name": "a", "msg": "b\\nc"})
    >>> OneLine("%(levelname)s %(name)s: %(message)s").format(record)
    'INFO a: b\\\\nc'
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = record.message.translate(ESCAPES)
        return super().formatMessage(record)


def formatter(service: str, format: str) -> logging.Formatter:
    """Returns the formatter for `text` or `json`.

    JSON lines have the fields `time`, `level`, `service`, `logger`, `message` and the extras of
    the log call.
    """
    if format != "json":
        return OneLine(TEXT)
    return JsonFormatter(
        "{levelname}{name}{message}",
        style="{",
        rename_fields={"levelname": "level", "name": "logger"},
        static_fields={"service": service},
        timestamp="time",
    )


def set_up(service: str, level: str = "INFO", format: str = "text") -> None:
    """Sends all log lines to stderr. `format` is `text` or `json`."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(service, format))
    logging.basicConfig(level=level, handlers=[handler])
    # At INFO they log each plugin that they load.
    for library in ("mysql.connector", "alembic"):
        logging.getLogger(library).setLevel(logging.WARNING)
