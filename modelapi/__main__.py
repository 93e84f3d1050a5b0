"""The command line of the models: python -m modelapi list | check | seal | promote | rollback |
shadow | alarm | … | token."""

import argparse
import getpass
import math
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from modelapi import champion
from modelapi.artifact import ArtifactError, Ref
from modelapi.champion import State, StateError
from modelapi.registry import alarm_of
from modelapi.repository import Model, Repository
from modelapi.seal import seal
from modelapi.settings import Settings
from modelapi.state_table import open_states
from modelapi.states import States
from wire.alarms import Policy
from wire.dotenv import read_dotenv
from wire.settings import read
from wire.tokens import SCOPES, make_token, read_key

DAY = 86_400


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    read_dotenv()
    asked = _parser().parse_args(arguments)
    try:
        _run(asked)
    except (ValueError, msgspec.ValidationError, OSError, ArtifactError, StateError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m modelapi",
        description="Lists, checks and changes the models in use, and prints tokens.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("list", help="list all models and their roles")
    commands.add_parser("history", help="list all changes of the models in use")
    commands.add_parser("rollback", help="restore the models in use before the last promotion")
    check = commands.add_parser("check", help="check whether artifacts would be served")
    check.add_argument("folder", type=Path, nargs="+", metavar="models/NAME/VERSION")
    sealed = commands.add_parser(
        "seal",
        help="complete a version that was written by hand",
        description="Fills in the digests, the golden rows, and the members of manifest.json that"
        " the folder, its files and the names of the features determine. Loads model.joblib, which"
        " can run code, so seal only your own files.",
    )
    sealed.add_argument("folder", type=Path, metavar="models/NAME/VERSION")
    for command, text in (
        ("promote", "make a version the champion; the previous one becomes a shadow"),
        ("shadow", "run a version as a shadow of the champion"),
    ):
        added = commands.add_parser(command, help=text)
        added.add_argument("model", metavar="NAME")
        added.add_argument("version", metavar="VERSION")
    unshadow = commands.add_parser("unshadow", help="end a shadow")
    unshadow.add_argument(
        "model", metavar="NAME[/VERSION]", help="one shadow, or all shadows of a model"
    )
    _add_alarm(commands.add_parser("alarm", help="set the alarm rule of a version"))
    _add_token(commands.add_parser("token", help="print a token"))
    return parser


def _add_token(token: argparse.ArgumentParser) -> None:
    token.add_argument("--subject", default="tool", help="subject of the token (default: tool)")
    token.add_argument("--days", default="365", help="days until the token expires (default: 365)")
    token.add_argument(
        "--scope",
        choices=SCOPES,
        default="infer",
        help="infer: request predictions; admin: also load and unload models (default: infer)",
    )
    token.add_argument(
        "--key",
        type=Path,
        default=os.environ.get("MODEL_TOKEN_KEY_FILE"),
        help="secret, or private key in PEM (default: MODEL_TOKEN_KEY_FILE)",
    )


def _add_alarm(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Sets a new alarm rule, which applies from now on. Omitted options keep their"
        " values. Times are in hours of the stream. Without options, prints the current rule."
    )
    parser.add_argument("model", metavar="NAME")
    parser.add_argument("version", metavar="VERSION")
    for option, text in (
        ("--at", "the probability that raises an alarm"),
        ("--clear", "an alarm ends below this probability"),
        ("--for-hours", "hours that the probability must have been at or above --at"),
        ("--silence-hours", "hours after an alarm during which the stay gets no other alarm"),
        ("--again-hours", "hours after which an active alarm is raised again; 0: never"),
    ):
        metavar = "HOURS" if option.endswith("-hours") else "P"
        parser.add_argument(option, type=float, metavar=metavar, help=text)
    parser.add_argument(
        "--window-hours",
        type=float,
        nargs=2,
        metavar=("FROM", "TO"),
        help="an alarm is true if the event occurs FROM to TO hours after it",
    )


def _run(asked: argparse.Namespace) -> None:
    if asked.command == "token":
        _print_token(asked)
    elif asked.command == "check":
        for folder in asked.folder:
            _check(folder)
    elif asked.command == "seal":
        model = seal(asked.folder.resolve())
        print(f"{model.ref}: sealed; {len(model.names)} features")
    else:
        _change(asked, read(Settings))


def _change(asked: argparse.Namespace, settings: Settings) -> None:
    models = Path(settings.models)
    repository = Repository(models)
    states = open_states(settings)
    actor = getpass.getuser()
    if asked.command == "list":
        _list(repository, states.read()[1])
    elif asked.command == "history":
        for change in states.history():
            # The actor's name comes from a token, so it may contain a line break.
            fields = [change.at, change.actor, change.action, change.model]
            if change.action == "alarm":
                fields.append(_rule(change.state.alarms[change.model]))
            print(*map(_printable, fields), sep="\t")
    elif asked.command == "rollback":
        _print_state(states.rollback(actor, lambda state: _verify(repository, state.champion)))
    elif asked.command == "unshadow":
        name = asked.model
        _print_state(
            states.change("unshadow", name, actor, lambda state: champion.unshadow(state, name))
        )
    elif asked.command == "alarm":
        _alarm(asked, repository, states, actor)
    else:
        ref = Ref(asked.model, asked.version)
        _verify(repository, ref)
        transition = champion.promote if asked.command == "promote" else champion.shadow
        _print_state(
            states.change(asked.command, str(ref), actor, lambda state: transition(state, ref))
        )


def _alarm(asked: argparse.Namespace, repository: Repository, states: States, actor: str) -> None:
    ref = Ref(asked.model, asked.version)
    model = _verify(repository, ref)
    given = {
        name: value
        for name in Policy.__struct_fields__
        if (value := getattr(asked, name, None)) is not None
    }
    if given.get("again_hours") == 0:
        given["again_hours"] = None
    if given:
        states.change("alarm", str(ref), actor, lambda state: _with_rule(state, model, given))
    rule = alarm_of(model, states.read()[1])
    print(f"{ref}: {_rule(rule)}" if rule else f"{ref}: no alarm")


def _with_rule(state: State, model: Model, given: dict[str, Any]) -> State:
    old = alarm_of(model, state)
    new = {**(msgspec.to_builtins(old) if old else {"revision": 0}), **given}
    new["revision"] += 1
    return champion.set_alarm(state, model.ref, msgspec.convert(new, Policy))


def _rule(policy: Policy) -> str:
    return msgspec.json.encode(policy).decode()


def _verify(repository: Repository, ref: Ref) -> Model:
    """Loads a version as the server does, because a version that cannot be served must not be put
    in use.
    """
    if ref not in repository.refs():
        raise ValueError(f"{repository.root}: has no model {ref}")
    return repository.load(ref)


def _check(folder: Path) -> None:
    folder = folder.resolve()
    model = Repository(folder.parent.parent).load(Ref(folder.parent.name, folder.name))
    served = type(model.predictor).__name__.lower()
    print(f"{model.ref}: valid; {len(model.names)} features, served as {served}")


def _list(repository: Repository, state: State) -> None:
    for ref in repository.refs():
        role = ""
        if ref == state.champion:
            role = "champion"
        elif ref in state.shadows:
            role = "shadow"
        elif ref.model in state.unloaded:
            role = "unloaded"
        try:
            title = repository.load(ref).manifest.title
        except ArtifactError as error:
            title = f"invalid: {error}"
        print(f"{ref.model:<20} {ref.version:<12} {role:<9} {title}")


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _print_state(state: State) -> None:
    shadows = ", ".join(map(str, state.shadows)) or "none"
    print(f"champion {state.champion}, shadows {shadows}")


def _print_token(asked: argparse.Namespace) -> None:
    if asked.key is None:
        raise ValueError(
            "no key: set MODEL_TOKEN_KEY_FILE, or use --key FILE (make token KEY=FILE)"
        )
    key, algorithm = read_key(asked.key, private=True)
    print(make_token(key, algorithm, asked.subject, _days(asked.days) * DAY, (asked.scope,)))


def _days(text: str) -> float:
    with suppress(ValueError):
        if 0 < (days := float(text)) < math.inf:
            return days
    raise ValueError(f"--days: {text!r} is not a number of days above 0")


if __name__ == "__main__":
    sys.exit(main())
