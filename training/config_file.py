"""Reads a config, and checks it as a whole before any data is read."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from training.config import ENVIRONMENT, Config, Data
from training.errors import TrainingError
from wire.features import AGGREGATIONS

TEMPLATE = Path(__file__).parent / "templates" / "new.toml"


class ConfigError(TrainingError):
    """A config cannot be read, written or used; each line of the message begins with its path."""


def load(path: Path) -> Config:
    """Reads and checks a config. Raises ConfigError with one line per error."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    errors = list(_shape_errors(Config, document, ""))
    if not errors:
        config: Config = msgspec.convert(document, Config, dec_hook=_path)
        errors = list(check(config))
    if errors:
        raise ConfigError("\n".join(f"{path}: {error}" for error in errors))
    return config


def write_new(path: Path) -> None:
    """Writes a config to start from. Raises ConfigError if the file exists or cannot be written."""
    text = TEMPLATE.read_text(encoding="utf-8")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text.replace("{name}", path.stem).replace("{file}", str(path)))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None


def _shape_errors(kind: Any, document: dict[str, Any], place: str) -> Iterator[str]:
    """The errors of each section and setting; msgspec by itself stops at the first error."""
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    hints = get_type_hints(kind, include_extras=True)
    yield from (f"{place}{name}: no such setting" for name in document.keys() - fields.keys())
    for name, field in fields.items():
        where = f"{place}{name}"
        if name not in document:
            if field.required:
                yield f"{where}: is missing"
            continue
        value, hint = document[name], hints[name]
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct) and isinstance(value, dict):
            yield from _shape_errors(hint, value, f"{where}.")
            continue
        try:
            msgspec.convert(value, hint, dec_hook=_path)
        except (msgspec.ValidationError, ValueError) as error:
            # msgspec does not name the valid values.
            choices = get_args(hint) if get_origin(hint) is Literal else ()
            reason = f"{value!r} is not one of {', '.join(choices)}" if choices else error
            yield f"{where}: {reason}"


def _path(kind: type, value: Any) -> Any:
    return kind(value)


def check(config: Config) -> Iterator[str]:
    """Yields one line per value or combination of values that has the right types but cannot be
    used."""
    yield from _check_database(config.data)
    for grid in config.features.grid:
        for aggregation in grid.aggregations:
            if aggregation not in AGGREGATIONS:
                yield f"features.grid: unknown aggregation {aggregation!r}"
    try:
        names = {feature.name for feature in config.declared}
    except ValueError as error:
        yield f"features: {error}"
        names = set(config.features.required)
    for name in config.features.required:
        if name not in names:
            yield f"features.required: {name!r} is not among the features"
    if list(config.data.sample_hours) != sorted(set(config.data.sample_hours)):
        yield "data.sample_hours: must ascend"
    if list(config.data.more_hours) != sorted(set(config.data.more_hours)):
        yield "data.more_hours: must ascend"
    if both := sorted({*config.data.hours} & {*config.data.more_hours}):
        yield f"data.more_hours: {both[0]} is also in data.sample_hours"
    if config.report.hour not in config.data.hours:
        yield f"report.hour: {config.report.hour} is not in data.sample_hours"
    if config.report.utility and config.label.within_hours is None:
        yield "report.utility: needs label.after_column and label.within_hours"
    if config.model.removal and config.model.kind == "logistic":
        yield "model.removal: logistic does not use it; set it to 0"
    if config.model.calibrate_by == "hours" and config.model.kind != "boosting":
        yield f'model.calibrate_by: "hours" needs kind = "boosting", not "{config.model.kind}"'
    if config.report.folds == 1:
        yield "report.folds: must be 0 (none) or at least 2"
    if config.split.by == "cohort" and not (config.split.train and config.split.test):
        yield 'split: by = "cohort" needs train and test'
    if set(config.split.train) & set(config.split.test):
        yield "split: a cohort is in both train and test"
    if config.data.parameters and "hour" in names:
        yield (
            "data.parameters: must be empty, because the feature `hour` counts from the first "
            "reading of any parameter"
        )
    yield from _check_alarm(config)
    if (config.label.within_hours is None) != (config.label.after_column is None):
        yield "label: after_column and within_hours must be set together"


def _check_alarm(config: Config) -> Iterator[str]:
    alarm, names = config.alarm, config.report.thresholds
    if alarm is None:
        return
    if (alarm.threshold is None) == (alarm.at == 1):
        yield "alarm: needs either at, a number below 1, or threshold"
    if alarm.threshold is not None and alarm.threshold not in names:
        yield f"alarm.threshold: {alarm.threshold!r} is not one of {', '.join(names)}"
    if alarm.threshold is not None and alarm.clear is not None:
        yield "alarm.clear: needs alarm.at, a number, instead of alarm.threshold"


def _check_database(data: Data) -> Iterator[str]:
    if data.database is None:
        if data.stream:
            yield f"data.stream: {data.stream!r} needs data.database"
        return
    if data.database != ENVIRONMENT and not data.database.startswith(("sqlite:///", "mysql://")):
        yield (
            f"data.database: {data.database!r} is not sqlite:///PATH, "
            f"mysql://USER@HOST[:PORT]/DATABASE or {ENVIRONMENT}"
        )
    if ":" in data.database.partition("://")[2].rpartition("@")[0]:
        yield (
            "data.database: no password here: name a file in DATABASE_PASSWORD_FILE, or put the "
            f'whole address into DATABASE_URL and "{ENVIRONMENT}" here'
        )
