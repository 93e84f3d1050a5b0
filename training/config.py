"""The settings of a training run, as sections of one TOML file."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from training import threshold_names
from training.threshold_names import Alarm
from wire.alarms import Policy
from wire.features import Feature

#: If data.database has this value, the address is in DATABASE_URL.
ENVIRONMENT = "environment"

Hours = Annotated[int, msgspec.Meta(gt=0)]
Positive = Annotated[int, msgspec.Meta(gt=0)]
Leaves = Annotated[int, msgspec.Meta(gt=1)]
Share = Annotated[float, msgspec.Meta(gt=0, le=1)]


class Data(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The data. folder: the folder with the CSVs and outcome.csv. parameters: the parameters that
    the model may use; empty for all. database: a database of the pipeline with the readings; then
    only outcome.csv is read from `folder`. Its address is sqlite:///PATH,
    mysql://USER@HOST[:PORT]/DATABASE, or `environment` for DATABASE_URL. stream: the name of the
    stream in the database; by default the stream with the latest commit. sample_hours: for each of
    these hours, a stay has one row: its last reading since the previous hour in the list. Hours
    count from the stay's first reading. every_hour_to: all hours up to this one, instead of a list.
    more_hours: rows of these hours are used for training but not for evaluation. carry_forward: an
    hour without a reading also has a row, with the features as of the last reading, until the
    stay's last reading.
    """

    folder: Path
    database: str | None = None
    stream: str = ""
    parameters: tuple[str, ...] = ()
    sample_hours: Annotated[tuple[Hours, ...], msgspec.Meta(min_length=1)] = (24,)
    more_hours: tuple[Hours, ...] = ()
    every_hour_to: Hours | None = None
    carry_forward: bool = False

    @property
    def hours(self) -> tuple[int, ...]:
        """The hours at which the model is evaluated."""
        if self.every_hour_to is None:
            return self.sample_hours
        return tuple(range(1, self.every_hour_to + 1))

    @property
    def learned_hours(self) -> float:
        """The last hour of a stay that the training rows cover."""
        return float(max((*self.hours, *self.more_hours)))


class Label(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The outcome that the model predicts. column: a column of outcome.csv with yes or no. event:
    the event in words. within_hours: if set, a row has the event if the event happens at most this
    number of hours after the row. after_column: the column with the time of the event, in hours
    since the midnight of the day of admission. keep_hours_after: rows at or after the event are
    left out, except during this number of hours; these rows have the event too.
    """

    column: str
    event: str
    after_column: str | None = None
    within_hours: Hours | None = None
    keep_hours_after: Annotated[int, msgspec.Meta(ge=0)] = 0


class Split(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The split for training and testing. by = cohort: train and test are values of the column
    `cohort` of outcome.csv. by = time: the last test_share of the stays are for testing, without
    patients of earlier stays. by = patient: about test_share of the patients are for testing,
    chosen by a hash of their number.
    """

    by: Literal["time", "cohort", "patient"] = "time"
    train: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    test_share: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.25


class Grid(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All combinations of parameters, aggregations and windows; window 0 is the whole stay."""

    parameters: tuple[str, ...]
    aggregations: tuple[str, ...]
    windows: tuple[Annotated[int, msgspec.Meta(ge=0)], ...] = (0,)


class Features(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The inputs of the model. names: single features. required: if one of these features is
    missing, there is no prediction."""

    names: tuple[str, ...] = ("age",)
    required: tuple[str, ...] = ("age",)
    grid: tuple[Grid, ...] = ()


class Trees(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Gradient boosting: number of trees, learning rate, number of leaves.

    features: the share of features available to each split. Each setting may be a list; then
    cross-validation on the training rows selects the best combination.
    """

    count: Positive | tuple[Positive, ...] = 120
    rate: Share | tuple[Share, ...] = 0.04
    leaves: Leaves | tuple[Leaves, ...] = 12
    features: Share | tuple[Share, ...] = 0.2

    @property
    def choices(self) -> "list[Trees]":
        """All combinations of the values."""
        fields = msgspec.structs.asdict(self)
        lists = [value if isinstance(value, tuple) else (value,) for value in fields.values()]
        return [Trees(**dict(zip(fields, values, strict=True))) for values in product(*lists)]


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The model and how it is fitted. name, version: those of the artifact; the default version is
    the next free number.

    removal: the share of channels that are removed at random from a copy of each training row, so
    that the model depends less on missing values; 0 for logistic. fit_on: with `all`, the artifact
    is fitted to training and test rows; with `train`, it is the evaluated model itself.
    calibrate_by: the weights of the rows that the calibration of `boosting` is fitted to. With
    `hours`, a row weighs as many hours as have passed since the previous sample hour, because in
    service a model predicts at every reading.
    """

    name: str
    title: str
    version: str | None = None
    kind: Literal["logistic", "boosting", "blend"] = "blend"
    seed: int = 0
    trees: Trees = Trees()
    removal: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    fit_on: Literal["all", "train"] = "all"
    calibrate_by: Literal["rows", "hours"] = "rows"


class Report(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The figures of the report. hour: most figures are computed at this hour, which must be one of
    `data.hours`. resamples: the number of bootstraps. ablation: whether to fit models without one
    channel, and with only one.

    baselines: served models to compare with, as NAME/VERSION. scores: columns of outcome.csv with a
    severity score that is evaluated on the same rows. folds: number of parts, by patient, of an
    additional cross-validation over all rows; 0 for none. learning: shares of the training
    patients, for the learning curve. flagged, sensitivity: shares of rows to flag, and shares of
    events to find. alarms_per_day: numbers of alarms per patient and day, by the rule in `[alarm]`.
    For each of these values, a threshold is chosen on the training side. utility: whether to
    compute the score of the PhysioNet 2019 challenge, for a label with a time.
    """

    hour: Hours
    resamples: Annotated[int, msgspec.Meta(ge=20)] = 500
    baselines: tuple[str, ...] = ("formula/1",)
    scores: tuple[str, ...] = ()
    ablation: bool = True
    folds: Annotated[int, msgspec.Meta(ge=0)] = 0
    learning: tuple[Share, ...] = ()
    flagged: tuple[Share, ...] = (0.1, 0.2)
    sensitivity: tuple[Share, ...] = (0.8,)
    alarms_per_day: tuple[Annotated[float, msgspec.Meta(gt=0)], ...] = ()
    utility: bool = False

    @property
    def thresholds(self) -> list[str]:
        """The names of the thresholds that are chosen on the training side."""
        names = ["balanced"]
        names += [threshold_names.flags(share) for share in self.flagged]
        names += [threshold_names.finds(share) for share in self.sensitivity]
        names += [threshold_names.alarms(number) for number in self.alarms_per_day]
        return [*names, "utility"] if self.utility else names


class Output(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The output folders of artifact and report."""

    models: Path = Path("models")
    reports: Path = Path("reports")


class Card(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The parts of the model card that a person writes, in Markdown."""

    summary: str
    developer: str
    intended_use: str
    out_of_scope: str
    population: str
    risks: str
    bias: str
    data: str
    alarm: str = ""
    left_out: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    references: tuple[str, ...] = ()

    @property
    def unwritten(self) -> list[str]:
        """The parts that are empty, or as in a new config."""
        required = [field.name for field in msgspec.structs.fields(self) if field.required]
        return [name for name in required if getattr(self, name).strip() in ("", "…")]


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The configuration of one training run."""

    data: Data
    label: Label
    split: Split
    features: Features
    model: Model
    report: Report
    card: Card
    alarm: Alarm | None = None
    output: Output = Output()

    @property
    def declared(self) -> list[Feature]:
        """The requested features without duplicates, in the order of the file."""
        names = [*self.features.names]
        for grid in self.features.grid:
            for parts in product(grid.parameters, grid.aggregations, grid.windows):
                parameter, aggregation, window = parts
                names.append(f"{parameter}__{aggregation}" + (f"__{window}h" if window else ""))
        return [Feature.parse(name) for name in dict.fromkeys(names)]

    @property
    def counted_alarm(self) -> Policy | None:
        """The rule by which training counts alarms; None if the config has neither an alarm rule
        nor `alarms_per_day`. The rule ends at the last sample hour, because later predictions
        raise no alarms."""
        if self.alarm is None and not self.report.alarms_per_day:
            return None
        rule = Policy(at=0.5) if self.alarm is None else self.alarm
        return msgspec.structs.replace(rule, learned_hours=self.data.learned_hours)


def in_next_version(root: Path, name: str, write: Callable[[str], Path]) -> Path:
    """Calls `write` with the next version, and again if another program has taken that version
    meanwhile; returns the folder that it returns."""
    while True:
        version = free_version(root, name)
        try:
            return write(version)
        except FileExistsError:
            if not (root / name / version).exists():
                raise


def free_version(root: Path, name: str) -> str:
    """The next version: the highest number plus 1, or 1."""
    numbers = [int(path.name) for path in (root / name).glob("*") if path.name.isdigit()]
    return str(max(numbers, default=0) + 1)
