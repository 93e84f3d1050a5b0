"""Replays patient data as the live stream of a ward, on GET /sub."""

import argparse
import asyncio
import logging
import sys

from hospital.serve import CannotServe, serve
from hospital.settings import Settings
from wire import logs
from wire.settings import SettingError, describe, read
from wire.summary import Summary


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m hospital",
        description=__doc__,
        epilog=describe(Settings),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args()
    try:
        settings = read(Settings)
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
