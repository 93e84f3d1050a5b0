"""`python -m buffer`: follow the stream and queue it for the tool. Settings: see README."""

import asyncio
import logging
import signal
import sys
from contextlib import suppress
from pathlib import Path

from prometheus_client import start_http_server
from pythonjsonlogger.json import JsonFormatter
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from buffer.main import Buffer
from buffer.settings import SettingError, Settings


async def serve(settings: Settings) -> None:
    password = (
        Path(settings.redis_password_file).read_text().strip()
        if settings.redis_password_file
        else None
    )
    redis = Redis.from_url(
        settings.redis_url, password=password, socket_timeout=5, retry=Retry(NoBackoff(), 1)
    )
    task = asyncio.create_task(Buffer(settings, redis).run())
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with suppress(asyncio.CancelledError):
        await task


def set_up_logging(settings: Settings) -> None:
    """To stderr. As JSON, a line is an object with time, level, service, logger and message."""
    handler = logging.StreamHandler()
    if settings.log_format == "json":
        handler.setFormatter(
            JsonFormatter(
                "{levelname}{name}{message}",
                style="{",
                rename_fields={"levelname": "level", "name": "logger"},
                static_fields={"service": "buffer"},
                timestamp="time",
            )
        )
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=settings.log_level, handlers=[handler])


def main() -> int:
    try:
        settings = Settings.from_environment()
    except SettingError as error:
        print(f"buffer: {error}", file=sys.stderr)
        return 1
    set_up_logging(settings)
    if settings.metrics_port:
        try:
            start_http_server(settings.metrics_port, settings.metrics_host)
        except OSError as error:
            print(
                f"buffer: BUFFER_METRICS_PORT={settings.metrics_port}: {error.strerror}",
                file=sys.stderr,
            )
            return 1
    asyncio.run(serve(settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
