"""Hospital: replays patient data as the live stream of a ward, on GET /sub."""

import argparse
import asyncio
import os
import sys

from hospital import settings
from hospital.logs import set_up_logging
from hospital.serve import CannotServe, serve


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m hospital",
        description=f"{__doc__}\n\n{settings.__doc__}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args()
    try:
        chosen = settings.Settings.from_environment(os.environ)
        set_up_logging(chosen)
        asyncio.run(serve(chosen))
    except (settings.SettingError, CannotServe) as error:
        print(f"hospital: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
