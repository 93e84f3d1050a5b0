"""`python -m embedded run` keeps the pipeline running; `python -m embedded replay` runs it once.

`python -m embedded live` has the gateway in front, for a live ward, and no hospital.

Settings come from the environment, see README: `REPLAY_RATE=0 python -m embedded run`.
"""

import argparse
import os
import sys
from pathlib import Path

from embedded.replay import replay
from embedded.stack import CannotRun, environment, manager, prepare, without_password

SOURCES = {"run": "hospital", "live": "gateway"}


def run(source: str) -> int:
    """Until Ctrl-C, or until one of the programs ends. source: hospital or gateway."""
    folder = Path("var")
    environ = environment(folder, source=source)
    prepare(folder, environ)
    print(
        f"ICU Stream: http://127.0.0.1:{environ['FRONT_PORT']}/ · "
        f"rows in {without_password(environ['DATABASE_URL'])} · Ctrl-C ends it",
        flush=True,
    )
    programs = manager(environ, source)
    programs.loop()
    return 0 if programs.returncode in (130, 143) else programs.returncode or 0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m embedded",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=["run", "live", "replay"])
    what = parser.parse_args().what
    os.chdir(Path(__file__).parent.parent)
    try:
        return replay() if what == "replay" else run(SOURCES[what])
    except CannotRun as error:
        print(f"embedded: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
