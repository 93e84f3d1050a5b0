"""Reads a config, and checks it as a whole before any data is read."""

import tomllib
from pathlib import Path
from typing import Any

import msgspec

from training.config import ENVIRONMENT, Config, Data
from wire.features import AGGREGATIONS


class ConfigError(Exception):
    """The file is invalid; the message is one line with file, setting and value."""


def load(path: Path) -> Config:
    """Reads and checks a config. Raises ConfigError."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        config = msgspec.convert(document, Config, dec_hook=_path)
        check(config)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from None
    return config


def _path(kind: type, value: Any) -> Any:
    return kind(value)


def check(config: Config) -> None:
    """Raises ValueError with one line that names the setting."""
    _check_database(config.data)
    for grid in config.features.grid:
        for aggregation in grid.aggregations:
            if aggregation not in AGGREGATIONS:
                raise ValueError(f"features.grid: unknown aggregation {aggregation!r}")
    names = {feature.name for feature in config.declared}
    for name in config.features.required:
        if name not in names:
            raise ValueError(f"features.required: {name!r} is not among the features")
    if list(config.data.sample_hours) != sorted(set(config.data.sample_hours)):
        raise ValueError("data.sample_hours: must ascend")
    if list(config.data.more_hours) != sorted(set(config.data.more_hours)):
        raise ValueError("data.more_hours: must ascend")
    if both := sorted({*config.data.hours} & {*config.data.more_hours}):
        raise ValueError(f"data.more_hours: {both[0]} is also in data.sample_hours")
    if config.report.hour not in config.data.hours:
        raise ValueError(f"report.hour: {config.report.hour} is not in data.sample_hours")
    if config.report.utility and config.label.within_hours is None:
        raise ValueError("report.utility: needs label.after_column and within_hours")
    if config.report.folds == 1:
        raise ValueError("report.folds: must be 0 (none) or at least 2")
    if config.split.by == "cohort" and not (config.split.train and config.split.test):
        raise ValueError("split: by cohort needs train and test")
    if set(config.split.train) & set(config.split.test):
        raise ValueError("split: a cohort is in both train and test")
    if (config.label.within_hours is None) != (config.label.after_column is None):
        raise ValueError("label: after_column and within_hours must be set together")


def _check_database(data: Data) -> None:
    if data.database is None:
        if data.stream:
            raise ValueError(f"data.stream: {data.stream!r}, but no data.database to find it in")
        return
    if data.database != ENVIRONMENT and not data.database.startswith(("sqlite:///", "mysql://")):
        raise ValueError(
            f"data.database: {data.database!r} is not sqlite:///PATH, "
            f"mysql://USER@HOST[:PORT]/DATABASE or {ENVIRONMENT}"
        )
    if ":" in data.database.partition("://")[2].rpartition("@")[0]:
        raise ValueError(
            "data.database: no password here: name a file in DATABASE_PASSWORD_FILE, or put the "
            f'whole address into DATABASE_URL and "{ENVIRONMENT}" here'
        )
