"""Imports data, trains models and evaluates them: `python -m training --help`."""

import argparse
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from modelapi.artifact import ArtifactError
from training.config import in_next_version
from training.config_file import ConfigError, load, write_new
from training.errors import TrainingError
from training.importers import FORMATS, convert
from wire import logs
from wire.dotenv import read_dotenv

DEFAULT = Path("training/configs/icu-mortality.toml")


def main() -> int:
    read_dotenv()
    chosen = _arguments()
    logs.set_up("training")
    # OpenMP's threads spin while they wait, which triples the time when another program needs a
    # core. This variable must be set before scikit-learn loads OpenMP.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    commands = {
        "import": _import,
        "new": _new,
        "train": _train,
        "evaluate": _evaluate,
        "export": _export,
    }
    try:
        commands[chosen.command](chosen)
    except (TrainingError, ArtifactError, OSError) as error:
        print(f"training: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("training: stopped", file=sys.stderr)
        return 130
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    importing = commands.add_parser("import", help="write the pipeline's CSVs from a data set")
    importing.add_argument("format", help=", ".join(FORMATS))
    importing.add_argument(
        "source", type=Path, help="folder or archive of the data set, as published"
    )
    importing.add_argument("target", type=Path, help="folder for the CSVs")
    new = commands.add_parser("new", help="write a config to start from")
    new.add_argument(
        "config", type=Path, help="the TOML file to write; its name becomes the model's name"
    )
    training = commands.add_parser("train", help="train, evaluate and write a model")
    training.add_argument(
        "config",
        type=Path,
        nargs="?",
        default=DEFAULT,
        help=f"the config, a TOML file (default: {DEFAULT})",
    )
    _add_evaluate(commands)
    _add_export(commands)
    return parser.parse_args()


def _add_evaluate(commands: Any) -> None:
    evaluating = commands.add_parser("evaluate", help="evaluate a finished model on your patients")
    evaluating.add_argument("model", help="NAME/VERSION")
    evaluating.add_argument("folder", type=Path, help="folder with the CSVs and outcome.csv")
    evaluating.add_argument(
        "--models",
        type=Path,
        default=Path("models"),
        help="folder of the models (default: %(default)s)",
    )
    evaluating.add_argument(
        "--reports",
        type=Path,
        default=Path("reports"),
        help="folder of the report (default: %(default)s)",
    )
    evaluating.add_argument(
        "--database", help="read the readings from this database; see docs/training.md"
    )
    evaluating.add_argument(
        "--stream",
        default="",
        help="stream in the database (default: the stream with the latest commit)",
    )
    evaluating.add_argument(
        "--label", help="column of outcome.csv with the outcome (default: the model's)"
    )
    evaluating.add_argument(
        "--hour",
        type=int,
        help="hour of the stay at which most figures are computed (default: that of the training)",
    )
    evaluating.add_argument(
        "--resamples", type=int, default=500, help="number of bootstraps (default: %(default)s)"
    )
    writing = evaluating.add_mutually_exclusive_group()
    writing.add_argument(
        "--recalibrate", choices=("intercept", "line"), help="write a recalibrated version"
    )
    writing.add_argument(
        "--reference",
        action="store_true",
        help="write a version with a drift reference from these data",
    )


def _add_export(commands: Any) -> None:
    exporting = commands.add_parser("export", help="write stored tables as CSV or Parquet")
    exporting.add_argument("folder", type=Path, help="folder for one file per table")
    exporting.add_argument(
        "--format",
        choices=("csv", "parquet"),
        default="csv",
        help="format of the files (default: %(default)s)",
    )
    exporting.add_argument(
        "--database",
        default=os.environ.get("DATABASE_URL") or "sqlite:///var/icu.sqlite",
        help="address of the database (default: DATABASE_URL, or else the file of `make run`)",
    )
    exporting.add_argument(
        "--stream",
        default="",
        help="stream to export (default: the stream with the latest commit)",
    )


def _import(chosen: argparse.Namespace) -> None:
    print(convert(chosen.format, chosen.source, chosen.target))


def _new(chosen: argparse.Namespace) -> None:
    write_new(chosen.config)
    print(f"{chosen.config}: change the lines marked with <")


def _train(chosen: argparse.Namespace) -> None:
    config = load(chosen.config)
    models, name = config.output.models, config.model.name
    version = config.model.version
    if version and (models / name / version).exists():
        raise ConfigError(
            f"{chosen.config}: model.version: {models / name / version} exists already"
        )
    from training import (
        artifact,
        report,
        train,
    )  # imported here, because scikit-learn takes a second

    result = train.run(config)
    if version:
        folder = artifact.write(result, version)
    else:
        # Only now, because another training of this model may have ended meanwhile.
        folder = in_next_version(models, name, partial(artifact.write, result))
    page = report.write(result, folder.name)
    _print_lines(result.headline)
    print(f"model:  {folder}\nreport: {page}")
    if unwritten := config.card.unwritten:
        print(f"card:   not written yet: {', '.join(unwritten)}")


def _evaluate(chosen: argparse.Namespace) -> None:
    from training import evaluate, own_reference, recalibrate, report

    request = evaluate.Request(
        model=chosen.model,
        folder=chosen.folder,
        models=chosen.models,
        database=chosen.database,
        stream=chosen.stream,
        label=chosen.label,
        hour=chosen.hour,
        resamples=chosen.resamples,
    )
    evaluation = evaluate.run(request)
    if chosen.recalibrate:
        folder = recalibrate.recalibrate(evaluation, chosen.models, chosen.recalibrate)
        print(f"model:  {folder}")
    if chosen.reference:
        print(f"model:  {own_reference.write(evaluation, chosen.models)}")
    page = report.write_evaluation(evaluation, chosen.reports)
    _print_lines([*evaluation.judgement.headline, *evaluation.recalibrated])
    for reason, count in evaluation.left_out.items():
        print(f"left out: {count:,} x {reason}")
    for warning in evaluation.warnings:
        print(f"warning: {warning}")
    print(f"report: {page}")


def _export(chosen: argparse.Namespace) -> None:
    from training.export import export  # imported here, because pyarrow takes half a second

    for file, rows in export(chosen.database, chosen.stream, chosen.folder, chosen.format):
        print(f"{file}: {rows:,} rows")


def _print_lines(lines: list[Any]) -> None:
    for line in lines:
        print(f"{line.name} ({line.rows:,} rows, {line.events:,} events)")
        print("  " + ", ".join(f"{metric} {figure}" for metric, figure in line.figures.items()))


if __name__ == "__main__":
    sys.exit(main())
