"""Import data and train models: `python -m training --help`."""

import argparse
import logging
import os
import sys
from pathlib import Path

from training.config import ConfigError, free_version, load
from training.importers import FORMATS, ImportFailure, convert

DEFAULT = Path("training/configs/icu-mortality.toml")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    importing = commands.add_parser("import", help="write the pipeline's CSVs from a data set")
    importing.add_argument("format", help=", ".join(FORMATS))
    importing.add_argument("source", type=Path, help="folder or archive as it was published")
    importing.add_argument("target", type=Path, help="folder for the CSVs")
    training = commands.add_parser("train", help="train, judge and write a model")
    training.add_argument(
        "config", type=Path, nargs="?", default=DEFAULT, help=f"a TOML file ({DEFAULT})"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s training: %(message)s")
    if arguments.command == "import":
        return _import(arguments.format, arguments.source, arguments.target)
    return _train(arguments.config)


def _import(format_name: str, source: Path, target: Path) -> int:
    try:
        report = convert(format_name, source, target)
    except (ImportFailure, OSError) as error:
        print(f"training: {error}", file=sys.stderr)
        return 1
    print(report)
    return 0


def _train(path: Path) -> int:
    try:
        config = load(path)
        models, name = config.output.models, config.model.name
        version = config.model.version or free_version(models, name)
        if (models / name / version).exists():
            raise ConfigError(f"{path}: model.version: {models / name / version} exists already")
    except ConfigError as error:
        print(f"training: {error}", file=sys.stderr)
        return 1

    # Before scikit-learn loads OpenMP: its threads would spin while they wait, which takes three
    # times as long as soon as another program wants a core too.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from modelapi.artifact import ArtifactError  # here: scikit-learn takes a second
    from training import artifact, report, train
    from training.dataset import DataError

    try:
        result = train.run(config)
        folder = artifact.write(result, version)
        page = report.write(result, version)
    except (DataError, ArtifactError, OSError) as error:
        print(f"training: {error}", file=sys.stderr)
        return 1
    for line in result.headline:
        print(line.name)
        print("  " + ", ".join(f"{metric} {figure}" for metric, figure in line.figures.items()))
    print(f"model:  {folder}\nreport: {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
