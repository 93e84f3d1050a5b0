"""Receives HL7v2, FHIR and JSON from a live ward, and serves them as a stream on GET /sub."""

import asyncio
import logging
import signal
import sqlite3
import ssl
import sys

import uvloop
from aiohttp import web

from gateway.app import create_app
from gateway.codes import CodesError
from gateway.settings import Settings
from wire import command_line, logs
from wire.summary import Summary
from wire.tokens import TokenKeyError

log = logging.getLogger("gateway")


async def serve(chosen: Settings) -> None:
    """Runs until SIGINT or SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if not chosen.time_zone:
        log.warning(
            "TIME_ZONE is not set: times are converted to UTC; set it to the ward's time zone"
        )
    runner = web.AppRunner(
        create_app(chosen), access_log=None, handler_cancellation=True, shutdown_timeout=1
    )
    try:
        await runner.setup()
        await web.TCPSite(runner, chosen.host, chosen.port).start()
        log.info("listening on http://%s:%d", *runner.addresses[0][:2])
        await stop.wait()
    finally:
        await runner.cleanup()


def main() -> int:
    chosen = command_line.settings("gateway", __doc__, Settings)
    try:
        logs.set_up("gateway", chosen.log_level, chosen.log_format)
        with Summary(log, {"icu_gateway_group_messages_sum": "messages received"}):
            uvloop.run(serve(chosen))
    except TokenKeyError as error:
        print(f"gateway: MODEL_TOKEN_KEY_FILE={error}", file=sys.stderr)
        return 1
    except CodesError as error:
        print(f"gateway: {error}", file=sys.stderr)
        return 1
    except (OSError, ssl.SSLError, sqlite3.Error) as error:
        print(f"gateway: cannot start: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
