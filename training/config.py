"""What to train, on what: one TOML file, checked as a whole before anything is read."""

import tomllib
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from tool.features import AGGREGATIONS, Feature


class ConfigError(Exception):
    """The file cannot be used; the message is one line naming file, setting and value."""


#: data.database: the address is in DATABASE_URL, where the pipeline's programs look for it.
ENVIRONMENT = "environment"

Hours = Annotated[int, msgspec.Meta(gt=0)]


class Data(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """folder: the CSVs and outcome.csv. parameters: those the model may see; all if empty.

    database: where tool stored the readings, sqlite:///PATH, mysql://USER@HOST[:PORT]/DATABASE
    or `environment`, which is DATABASE_URL; of `folder` only outcome.csv is read then. stream:
    which one; the one last committed to if left out.

    sample_hours: a stay gives one row for each, its last reading between the hour before
    in the list and this one, counted from the stay's first reading.

    more_hours: rows of these hours are trained on too, but nothing is judged by them.
    """

    folder: Path
    database: str | None = None
    stream: str = ""
    parameters: tuple[str, ...] = ()
    sample_hours: Annotated[tuple[Hours, ...], msgspec.Meta(min_length=1)] = (24,)
    more_hours: tuple[Hours, ...] = ()


class Label(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """column: 0 or 1, of outcome.csv. With within_hours: the event is one that happens at
    most so many hours after the row, its time being in after_column (hours since admission).
    """

    column: str
    event: str
    after_column: str | None = None
    within_hours: Hours | None = None


class Split(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """by cohort: train and test name values of outcome.csv's column `cohort`.

    by time: the last test_share of the stays is for testing, less patients seen before.
    """

    by: Literal["time", "cohort"] = "time"
    train: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    test_share: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.25


class Grid(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Every combination of parameters, aggregations and windows; window 0: the whole stay."""

    parameters: tuple[str, ...]
    aggregations: tuple[str, ...]
    windows: tuple[Annotated[int, msgspec.Meta(ge=0)], ...] = (0,)


class Features(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """names: single features. required: without them there is no prediction."""

    names: tuple[str, ...] = ("age",)
    required: tuple[str, ...] = ("age",)
    grid: tuple[Grid, ...] = ()


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """name, version: of the artifact; without a version the next free number is taken."""

    name: str
    title: str
    version: str | None = None
    kind: Literal["logistic", "boosting", "blend"] = "blend"
    seed: int = 0


class Report(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """hour: the one of sample_hours that most figures are told for.

    baselines: served models to compare with, as NAME/VERSION. folds: also cross-validate over
    all rows, in so many parts by patient; 0: not.
    """

    hour: Hours
    resamples: Annotated[int, msgspec.Meta(ge=20)] = 500
    baselines: tuple[str, ...] = ("formula/1",)
    ablation: bool = True
    folds: Annotated[int, msgspec.Meta(ge=0)] = 0


class Output(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the artifact and the report go."""

    models: Path = Path("models")
    reports: Path = Path("reports")


class Card(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What only a person can say, for the model card; Markdown."""

    summary: str
    developer: str
    intended_use: str
    out_of_scope: str
    population: str
    risks: str
    bias: str
    data: str
    left_out: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    references: tuple[str, ...] = ()


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One training run."""

    data: Data
    label: Label
    split: Split
    features: Features
    model: Model
    report: Report
    card: Card
    output: Output = Output()

    @property
    def declared(self) -> list[Feature]:
        """The features asked for, each once, in the order of the file."""
        names = [*self.features.names]
        for grid in self.features.grid:
            for parts in product(grid.parameters, grid.aggregations, grid.windows):
                parameter, aggregation, window = parts
                names.append(f"{parameter}__{aggregation}" + (f"__{window}h" if window else ""))
        return [Feature.parse(name) for name in dict.fromkeys(names)]


def load(path: Path) -> Config:
    """Read and check a config; raises ConfigError."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        config = msgspec.convert(document, Config, dec_hook=_path)
        _check(config)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from None
    return config


def free_version(root: Path, name: str) -> str:
    """The number after the highest numbered version there is, 1 for the first."""
    numbers = [int(path.name) for path in (root / name).glob("*") if path.name.isdigit()]
    return str(max(numbers, default=0) + 1)


def _path(kind: type, value: Any) -> Any:
    return kind(value)


def _check(config: Config) -> None:
    _check_database(config.data)
    for grid in config.features.grid:
        for aggregation in grid.aggregations:
            if aggregation not in AGGREGATIONS:
                raise ValueError(f"features.grid: aggregation {aggregation!r} is not one")
    names = {feature.name for feature in config.declared}
    for name in config.features.required:
        if name not in names:
            raise ValueError(f"features.required: {name!r} is not among the features")
    if list(config.data.sample_hours) != sorted(set(config.data.sample_hours)):
        raise ValueError("data.sample_hours: must ascend")
    if list(config.data.more_hours) != sorted(set(config.data.more_hours)):
        raise ValueError("data.more_hours: must ascend")
    if both := sorted({*config.data.sample_hours} & {*config.data.more_hours}):
        raise ValueError(f"data.more_hours: {both[0]} is in data.sample_hours too")
    if config.report.hour not in config.data.sample_hours:
        raise ValueError(f"report.hour: {config.report.hour} is not in data.sample_hours")
    if config.report.folds == 1:
        raise ValueError("report.folds: 1 is no split; 0 for none")
    if config.split.by == "cohort" and not (config.split.train and config.split.test):
        raise ValueError("split: by cohort needs train and test")
    if set(config.split.train) & set(config.split.test):
        raise ValueError("split: a cohort is in both train and test")
    if (config.label.within_hours is None) != (config.label.after_column is None):
        raise ValueError("label: after_column and within_hours come together")


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
