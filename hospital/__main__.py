"""Replays patient data as the live stream of a ward, on GET /sub."""

import asyncio
import logging
import sys

from hospital.serve import CannotServe, serve
from hospital.settings import Settings
from wire import command_line, logs
from wire.settings import SettingError
from wire.summary import Summary


def main() -> int:
    settings = command_line.settings("hospital", __doc__, Settings)
    try:
        logs.set_up("hospital", settings.log_level, settings.log_format)
        counts = {"icu_hospital_messages_sent_total": "messages sent"}
        with Summary(logging.getLogger("hospital"), counts):
            asyncio.run(serve(settings))
    except (SettingError, CannotServe) as error:
        print(f"hospital: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
