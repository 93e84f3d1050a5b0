"""`python -m buffer`: follows the stream and queues its messages for the tool."""

import asyncio
import logging
import signal
import sys
from contextlib import suppress

from buffer.follow import Buffer
from buffer.settings import Settings
from wire import command_line, keys, logs, metrics_server
from wire.summary import Summary


async def serve(settings: Settings) -> None:
    """Runs until SIGINT or SIGTERM."""
    redis = keys.connection(settings.redis_url, settings.redis_password_file.secret)
    task = asyncio.create_task(Buffer(settings, redis).run())
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with suppress(asyncio.CancelledError):
        await task


def main() -> int:
    settings = command_line.settings(
        "buffer", "Follows the stream and queues its messages for the tool.", Settings
    )
    logs.set_up("buffer", settings.log_level, settings.log_format)
    if settings.metrics_port:
        try:
            names = {"buffer", *settings.allowed_hosts}
            metrics_server.serve(settings.metrics_host, settings.metrics_port, names)
        except OSError as error:
            reason = f"BUFFER_METRICS_PORT={settings.metrics_port}: {error.strerror}"
            print(f"buffer: {reason}", file=sys.stderr)
            return 1
    counts = {
        "icu_buffer_messages_received_total": "messages received",
        "icu_buffer_batch_messages_sum": "queued",
    }
    with Summary(
        logging.getLogger("buffer"), counts, {"icu_buffer_waiting_messages": "waiting now"}
    ):
        asyncio.run(serve(settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
