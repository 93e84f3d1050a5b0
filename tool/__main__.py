"""Stores queued messages, computes features and asks for predictions."""

import argparse
import logging
import sys
from datetime import date
from typing import Any

from redis.exceptions import RedisError

from tool import supervisor
from tool.backfill import backfill
from tool.capacity import measure, report
from tool.database import DatabaseError
from tool.dead_letters import replay
from tool.forget import (
    ToolRuns,
    forget,
    forget_expired,
    forget_rest,
    give_back_space,
    refuse_beside_tool,
)
from tool.model_server import ModelUnavailable
from tool.processes import set_up_logging
from tool.rejections import DEAD_LETTER
from tool.settings import Settings, client_of, database_of, redis_of
from wire import command_line
from wire.dotenv import read_dotenv
from wire.settings import SettingError, read

ERRORS = (
    SettingError,
    DatabaseError,
    RedisError,
    ModelUnavailable,
    ToolRuns,
    supervisor.CannotStart,
)


def main() -> int:
    arguments = _parser().parse_args()
    if arguments.command:
        read_dotenv()
    try:
        settings = read(Settings)
        set_up_logging(settings)
        if arguments.command == "replay":
            return _replay(settings, arguments.reason)
        if arguments.command == "forget":
            return _forget(settings, arguments)
        if arguments.command == "backfill":
            return _backfill(settings, arguments.model, arguments.version)
        if arguments.command == "capacity":
            print(report(measure(database_of(settings).session)))
            return 0
        if arguments.command == "migrate":
            supervisor.prepare(settings)
        else:
            supervisor.run(settings)
    except ERRORS as error:
        print(f"tool: {error}", file=sys.stderr)
        return 1
    return 0


def _replay(settings: Settings, reason: str) -> int:
    database = database_of(settings)
    done, left = replay(redis_of(settings), database, settings.partitions, reason)
    print(f"{done} messages replayed, {left} still rejected")
    return 1 if left else 0


def _backfill(settings: Settings, model: str, version: str) -> int:
    client = client_of(settings, pause_max=2.0)
    done = backfill(database_of(settings), client, client.describe(model, version))
    print(f"{done:,} predictions of {model} {version} added")
    return 0


def _forget(settings: Settings, asked: argparse.Namespace) -> int:
    if asked.expired and not settings.retention_days:
        raise SettingError("RETENTION_DAYS is not set: no stay expires")
    session = database_of(settings).session
    refuse_beside_tool(redis_of(settings), session)
    if asked.expired:
        done = forget_expired(session, settings.retention_days)
    elif asked.discharged_before:
        done = forget(session, "date_discharge < ?", asked.discharged_before.isoformat())
    else:
        done = forget(session, "stream = ?", asked.stream)
        done += forget_rest(session, asked.stream)
    deleted = ", ".join(f"{count:,} {table}" for table, count in sorted(done.items()) if count)
    logging.getLogger("tool").info("forgot %s", deleted or "nothing")
    print(f"deleted: {deleted or 'nothing'}")
    # --expired runs regularly, so new rows soon fill the space.
    if not deleted or asked.expired:
        return 0
    try:
        give_back_space(session)
    except DatabaseError as error:
        print(f"tool: the rows are deleted, but their space is not freed: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = command_line.parser("tool", __doc__, Settings)
    commands = parser.add_subparsers(dest="command", title="commands")
    again = commands.add_parser(
        "replay",
        help="process rejected messages again after the cause is fixed",
        description="Lets the running tool process rejected messages again and store them "
        "as late messages. Messages that fail or are rejected again stay in table `rejected`.",
    )
    again.add_argument(
        "reason",
        nargs="?",
        default=DEAD_LETTER,
        help="selects messages whose reason starts with this text (default: %(default)r)",
    )
    commands.add_parser(
        "migrate",
        help="create the tables, or upgrade tables of an earlier version",
        description="Creates the tables, or upgrades tables of an earlier version and keeps their"
        " rows. The tool does this itself when it starts, if its database user may change tables.",
    )
    _add_forget(commands)
    late = commands.add_parser(
        "backfill",
        help="add the predictions of one version of a model for readings that are already stored",
        description="Adds the predictions of a version of a model for the readings that were "
        "stored before it was in use. The tool can run at the same time. If a run is interrupted, "
        "the next run continues it.",
    )
    late.add_argument("model", metavar="NAME")
    late.add_argument("version", metavar="VERSION")
    commands.add_parser(
        "capacity", help="measure the space of each table, in total and per reading"
    )
    return parser


def _add_forget(commands: Any) -> None:
    forget = commands.add_parser(
        "forget",
        help="delete stays and all their data",
        description="Deletes stays and all their data, in chunks: readings, statistics, "
        "predictions, alarms, acknowledgements, discharges, outcomes and rejected messages. "
        "Returns the space to the disk, except with --expired. Stop the tool first. The positions "
        "are kept, so the pipeline does not read the deleted messages again.",
    )
    which = forget.add_mutually_exclusive_group(required=True)
    which.add_argument("--stream", help="all stays of this stream")
    which.add_argument(
        "--discharged-before",
        type=date.fromisoformat,
        metavar="DATE",
        help="stays of all streams that ended before this day, YYYY-MM-DD",
    )
    which.add_argument(
        "--expired",
        action="store_true",
        help="stays that ended more than RETENTION_DAYS before the last reading of their stream",
    )


if __name__ == "__main__":
    sys.exit(main())
