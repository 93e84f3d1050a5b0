"""Requires users to log in, and records which patients they open.

Without a command, runs the service that nginx asks about each request.
"""

import argparse
import asyncio
import getpass
import json
import logging
import sqlite3
import sys

from aiohttp import web

from login.app import create_app
from login.passwords import hashed, user_name
from login.settings import Settings
from login.store import Store
from wire import command_line, logs
from wire.settings import SettingError, read
from wire.summary import Summary


def main() -> int:
    arguments = _parser().parse_args()
    try:
        settings = read(Settings)
        logs.set_up("login", settings.log_level, settings.log_format)
        store = Store(settings.login_file)
        if arguments.command == "add":
            return _add(store, arguments.name)
        if arguments.command == "remove":
            return _remove(store, arguments.name)
        if arguments.command == "users":
            print(*store.users(), sep="\n")
        elif arguments.command == "audit":
            for entry in store.audit():
                print(json.dumps(entry._asdict()))
        else:
            return _serve(settings, store)
    except (SettingError, ValueError) as error:
        return _failed(str(error))
    except (sqlite3.Error, OSError) as error:
        return _failed(f"LOGIN_FILE={settings.login_file}: {error}")
    return 0


def _add(store: Store, name: str) -> int:
    user = user_name(name)
    if sys.stdin.isatty():
        password = getpass.getpass(f"Password of {user}: ")
        if getpass.getpass("Once more: ") != password:
            return _failed("the passwords differ")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    known = store.password(user) is not None
    store.set_password(user, hashed(password))
    store.forget_failures(user)
    print(f"{user}: password changed" if known else f"{user}: added")
    return 0


def _remove(store: Store, name: str) -> int:
    user = user_name(name)
    if not store.remove(user):
        return _failed(f"there is no user {user}")
    print(f"{user}: removed")
    return 0


def _serve(settings: Settings, store: Store) -> int:
    if settings.required and not settings.oidc_proxy and not store.users():
        return _failed(
            "people must log in, but there is no user: add one with `python -m login add NAME` "
            "(compose: `docker compose run --rm login python -m login add NAME`)"
        )
    counts = {
        "icu_login_checks_total": "requests checked",
        "icu_login_attempts_total": "attempts to log in",
    }
    try:
        with Summary(logging.getLogger("login"), counts):
            web.run_app(
                create_app(settings, store),
                host=settings.host,
                port=settings.port,
                print=lambda _: None,
                access_log=None,
                shutdown_timeout=1,
                loop=asyncio.new_event_loop(),
            )
    except OSError as error:
        return _failed(f"LOGIN_PORT={settings.port}: {error.strerror}")
    return 0


def _failed(reason: str) -> int:
    print(f"login: {reason}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = command_line.parser("login", __doc__, Settings)
    commands = parser.add_subparsers(dest="command", title="commands")
    add = commands.add_parser(
        "add", help="add a user, or change a password; asks for it, or reads one line from stdin"
    )
    add.add_argument("name")
    remove = commands.add_parser("remove", help="remove a user and end the user's sessions")
    remove.add_argument("name")
    commands.add_parser("users", help="list the users")
    commands.add_parser("audit", help="print the audit log, one JSON object per line")
    return parser


if __name__ == "__main__":
    sys.exit(main())
