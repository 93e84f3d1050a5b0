"""Runs the whole pipeline without Docker.

`run` starts the pipeline, and stops it at Ctrl-C. `live` does the same, with the gateway instead of
hospital. `replay` runs the whole input through an empty pipeline once, and prints figures.

Settings are environment variables, as in `REPLAY_RATE=0 python -m embedded run`, or lines of the
file .env; see docs/settings.md.
"""

import argparse
import os
import sys
from pathlib import Path

from embedded.programs import ROOT
from embedded.replay import replay
from embedded.stack import (
    CannotRun,
    Output,
    environment,
    make_private,
    manager,
    prepare,
)
from wire.dotenv import read_dotenv
from wire.settings import without_password

FOLDER = Path("var")
SOURCES = {"run": "hospital", "live": "gateway"}


def run(source: str) -> int:
    """Runs the pipeline until Ctrl-C. source: hospital or gateway. Raises CannotRun if it cannot
    start, or if one of the programs ends."""
    environ = environment(FOLDER, source=source)
    make_private(FOLDER)
    prepare(FOLDER, environ, source)
    print(
        f"ICU Stream: http://127.0.0.1:{environ['FRONT_PORT']}/ · "
        f"rows in {without_password(environ['DATABASE_URL'])} · Ctrl-C ends it",
        flush=True,
    )
    output = Output(sys.stdout)
    programs = manager(environ, source, output)
    programs.loop()
    if programs.returncode in (130, 143):
        return 0
    raise CannotRun(f"{output.first_end}; its log is above")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m embedded",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=["run", "live", "replay"])
    what = parser.parse_args().what
    os.chdir(ROOT)
    # Only the owner may read the tables, logs and derived files, because they hold patients' data.
    os.umask(0o077)
    read_dotenv()
    try:
        return replay() if what == "replay" else run(SOURCES[what])
    except CannotRun as error:
        print(f"embedded: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # while the programs are being prepared
        return 130


if __name__ == "__main__":
    sys.exit(main())
