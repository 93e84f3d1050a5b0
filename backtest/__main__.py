"""Scores models on a ward's own history: discrimination, calibration, and alarm burden."""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from backtest import figures, gate, history, report
from backtest.figures import Backtest
from backtest.history import NoHistory
from backtest.recalibration import recalibration
from backtest.replay import replay
from embedded.stack import CannotRun
from modelapi.artifact import ArtifactError, Ref, read_artifact
from training import outcomes as outcome_file
from training.config import Label
from training.database import snapshot
from training.errors import TrainingError
from training.recalibrate import write
from wire import logs
from wire.alarms import Policy
from wire.dotenv import read_dotenv
from wire.settings import without_password

log = logging.getLogger("backtest")

MODELS = Path("models")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(
        prog="python -m backtest",
        description=__doc__,
        epilog="The last line of the standard output is a JSON object with all figures.",
    )
    add = found.add_argument
    add("folder", type=Path, help="folder with the CSVs and outcome.csv")
    add(
        "models",
        nargs="+",
        type=Ref.parse,
        help="NAME/VERSION of each model; the first is the champion",
    )
    add(
        "--database",
        help="evaluate the predictions in this database, without a replay; "
        "DATABASE_PASSWORD_FILE names the file with its password",
    )
    add("--stream", help="stream in the database (default: the stream with the latest commit)")
    add(
        "--resamples",
        type=int,
        default=100,
        help="number of bootstrap samples (default: %(default)s)",
    )
    add(
        "--to",
        type=Path,
        default=Path("reports/backtest"),
        help="folder of the report (default: %(default)s)",
    )
    add(
        "--recalibrate",
        choices=("intercept", "line"),
        help="fit the champion's intercept, or intercept and slope, to the first half of the "
        "stays, evaluate them on the rest, and write a new version to models/",
    )
    _add_bounds(found)
    _add_event(found.add_argument_group("the event"))
    _add_alarm(found.add_argument_group("an alarm rule that replaces each model's own"))
    return found


def _add_bounds(found: argparse.ArgumentParser) -> None:
    for name in ("least", "most"):
        found.add_argument(
            f"--at-{name}",
            action="append",
            default=[],
            type=gate.Bound.parse,
            metavar="FIGURE=VALUE",
            help=f"exit with status 3 if the champion's figure is not at {name} this value, "
            "for example auroc=.74",
        )


def _add_event(group: Any) -> None:
    add = group.add_argument
    add(
        "--outcome",
        default="died_in_hospital",
        help="column of outcome.csv with the event (default: %(default)s)",
    )
    add(
        "--after",
        help="column of outcome.csv with the hours from admission to the event, if they are known",
    )
    add(
        "--within",
        type=int,
        metavar="HOURS",
        help="count the event for a reading only if it happens at most this number of hours after "
        "it; needs --after (default: at any time)",
    )


def _add_alarm(group: Any) -> None:
    add = group.add_argument
    add("--at", type=float, help="probability that raises an alarm (default: 0.3)")
    add("--clear", type=float, help="probability below which an alarm is cleared (default: --at)")
    add(
        "--for-hours",
        type=float,
        help="hours that the probability must have been at or above --at (default: 0)",
    )
    add(
        "--silence-hours",
        type=float,
        help="hours after an alarm during which the stay gets no other alarm (default: 6)",
    )
    add(
        "--again-hours",
        type=float,
        help="hours after which an active alarm is raised again (default: never)",
    )
    add(
        "--window-hours",
        type=float,
        nargs=2,
        metavar=("FROM", "TO"),
        help="an alarm is true if the event occurs FROM to TO hours after it (default: 0 48)",
    )
    add(
        "--alarms-per-patient-day",
        type=float,
        default=1.0,
        help="budget: the report shows the threshold that finds the most events with at most this "
        "number of alarms per patient-day (default: %(default)s)",
    )


def policy_of(chosen: Any, version: Ref) -> Policy:
    """The alarm rule: that of the command line if an option is set, or else that of the model's
    manifest, or else the default. Its `learned_hours` are always those of the manifest."""
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name in Policy.__struct_fields__
        if (value := getattr(chosen, name, None)) is not None
    }
    folder = MODELS / version.model / version.version
    manifest = read_artifact(folder).manifest if folder.is_dir() else None
    rule = Policy(**({"at": 0.3, "silence_hours": 6.0} | given))
    if manifest is None:
        return rule
    if not given and manifest.alarm:
        rule = manifest.alarm
    return msgspec.structs.replace(rule, learned_hours=manifest.learned_hours or None)


def main(arguments: Sequence[str] | None = None) -> int:
    read_dotenv()
    options = parser()
    chosen = options.parse_args(arguments)
    if chosen.within is not None and chosen.after is None:
        options.error("--within needs --after")
    logs.set_up("backtest", "INFO")
    replayed: dict[str, Any] = {}
    try:
        url = chosen.database
        if not url:
            _check(chosen)
            log.info("replaying %s", chosen.folder)
            url, replayed = replay(chosen.folder, chosen.models)
        found = run(chosen, url)
        if found.recalibration:
            print(f"backtest: wrote {write(found.recalibration, MODELS)}", file=sys.stderr)
    except (ArtifactError, CannotRun, NoHistory, TrainingError, ValueError) as error:
        print(f"backtest: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("backtest: stopped", file=sys.stderr)
        return 130
    page = report.write(found, replayed, chosen.to)
    as_json = report.as_json(found, replayed)
    failed = gate.failed(as_json["models"][0], chosen.at_least, chosen.at_most)
    for line in failed:
        print(f"backtest: {line}", file=sys.stderr)
    print(f"{page}", file=sys.stderr)
    print(json.dumps(as_json))
    return 3 if failed else 0


def _check(chosen: Any) -> None:
    """Raises ValueError for what would fail only after the replay, which may take minutes."""
    for version in chosen.models:
        if not (MODELS / version.model / version.version).is_dir():
            raise ValueError(f"{MODELS} has no model {version}")
    outcome_file.check(chosen.folder, _label(chosen))


def _label(chosen: Any) -> Label:
    return Label(
        column=chosen.outcome,
        event=chosen.outcome.replace("_", " "),
        after_column=chosen.after,
        within_hours=chosen.within,
    )


def run(chosen: Any, url: str) -> Backtest:
    """Computes all figures. Raises NoHistory, TrainingError, ArtifactError or ValueError with a
    one-line message."""
    label = _label(chosen)
    log.info("reading predictions from %s", without_password(url))
    with snapshot(url) as stored:
        stream = stored.stream(chosen.stream or "")
        outcomes = outcome_file.read(chosen.folder, label, stored.identifiers(stream))
        known = outcomes.table.join(stored.ages(stream))
        histories = [
            history.judge(version, history.predictions(stored, stream, version), known, label)
            for version in chosen.models
        ]
    models = []
    for judged in histories:
        log.info("%s: %s readings; computing figures", judged.version, f"{len(judged.rows):,}")
        rule = policy_of(chosen, judged.version)
        models.append(
            figures.measure(judged, rule, chosen.alarms_per_patient_day, chosen.resamples)
        )
    champion = models[0].history
    comparisons = [
        figures.compare(champion, model.history, chosen.resamples) for model in models[1:]
    ]
    found = Backtest(stream, label.event, chosen.alarms_per_patient_day, models, comparisons)
    if chosen.recalibrate:
        found.recalibration = recalibration(
            champion, chosen.recalibrate, chosen.resamples, outcomes.digest
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
