"""`python -m tool`: store what is queued, and predict. Settings: see README."""

import sys

from tool.run import run, set_up_logging
from tool.settings import SettingError, Settings


def main() -> int:
    try:
        settings = Settings.from_environment()
    except SettingError as error:
        print(f"tool: {error}", file=sys.stderr)
        return 1
    set_up_logging(settings)
    run(settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
