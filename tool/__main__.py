"""Stores what is queued, and predicts. Settings come from the environment, see README."""

import argparse
import sys

from redis.exceptions import RedisError

from tool.data_handler import SET_ASIDE
from tool.database import DatabaseError
from tool.replay import replay
from tool.run import database_of, prepare_tables, redis_of, run, set_up_logging
from tool.settings import SettingError, Settings


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tool", description=__doc__)
    commands = parser.add_subparsers(dest="command", title="commands")
    again = commands.add_parser(
        "replay",
        help="take rejected messages up again, once what was wrong has been mended",
        description="Takes rejected messages up again, as ones that arrive late, through the "
        "running tool. Those that still cannot be used stay in table `rejected`.",
    )
    again.add_argument(
        "reason",
        nargs="?",
        default=SET_ASIDE,
        help="those whose reason begins with this (default: %(default)r)",
    )
    commands.add_parser(
        "migrate",
        help="create the tables, or upgrade those of an earlier version",
        description="Creates the tables, or upgrades those of an earlier version with their rows. "
        "The tool does the same when it starts as a user who may change tables.",
    )
    arguments = parser.parse_args()
    try:
        settings = Settings.from_environment()
    except SettingError as error:
        print(f"tool: {error}", file=sys.stderr)
        return 1
    set_up_logging(settings)
    if arguments.command == "replay":
        return _replay(settings, arguments.reason)
    try:
        if arguments.command == "migrate":
            prepare_tables(settings)
        else:
            run(settings)
    except (SettingError, DatabaseError) as error:
        print(f"tool: {error}", file=sys.stderr)
        return 1
    return 0


def _replay(settings: Settings, reason: str) -> int:
    database = database_of(settings)
    try:
        done, left = replay(redis_of(settings), database, settings.partitions, reason)
    except (DatabaseError, RedisError) as error:
        print(f"tool: {error}", file=sys.stderr)
        return 1
    print(f"{done} messages replayed, {left} still rejected")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
