"""Computes all figures of a backtest: those of each model, and those of each challenger compared
with the champion.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from backtest.burden import Burden, burden, curve, thresholds, within_budget
from backtest.history import History, NoHistory
from training.arrays import Floats, Integers
from training.bootstraps import Cells
from training.calibration import bins
from training.database import KEY
from training.evaluation import (
    METRICS,
    Figure,
    Judge,
    Line,
    Scores,
    evaluate,
    figure,
)
from training.groups import FEWEST_EVENTS, judge_subgroups, patients_with_event
from training.recalibrate import Recalibration
from wire.alarms import Policy

BANDS = ((0.0, 6.0), (6.0, 24.0), (24.0, 48.0), (48.0, 96.0), (96.0, 168.0), (168.0, np.inf))
SHOWN = ("auroc", "auprc", "brier", "calibration_slope", "calibration_intercept")
SEED = 1

# The outcome, the probability and the weight of each row, in descending order of probability.
Weighed = tuple[Integers, Floats, Floats]


@dataclass(frozen=True)
class ModelFigures:
    """A model's figures over all readings, by hour of the stay and by subgroup, and the figures of
    its alarms."""

    history: History
    overall: dict[str, Figure]
    bands: list[Line]
    subgroups: list[Line]
    calibration: list[tuple[float, float, float, float]]
    policy: Policy
    alarms: Burden
    curve: list[Burden]
    budget: Burden | None


@dataclass(frozen=True)
class Comparison:
    """A challenger's gain over the champion on the same readings; a positive gain means that the
    challenger is better."""

    challenger: str
    readings: int
    auroc: Figure
    brier: Figure

    @property
    def verdict(self) -> str:
        """`better` or `worse` if the interval of the gain in AUROC excludes 0, or else `no clear
        difference`."""
        if self.auroc.low > 0:
            return "better"
        return "worse" if self.auroc.high < 0 else "no clear difference"


@dataclass
class Backtest:
    """The results of a backtest."""

    stream: str
    label: str
    per_patient_day: float
    models: list[ModelFigures]
    comparisons: list[Comparison] = field(default_factory=list)
    recalibration: Recalibration | None = None


def measure(
    history: History, policy: Policy, per_patient_day: float, resamples: int
) -> ModelFigures:
    """Computes one model's figures. Raises NoHistory if its readings lack one of the outcomes."""
    scores = history.scores()
    if not scores.both:
        raise NoHistory(f"{history.version}: all readings have the same outcome")
    judge = Judge(resamples, SEED)
    bands = []
    for low, high in BANDS:
        part = history.scores((low, high))
        if patients_with_event(part) >= FEWEST_EVENTS and part.both:
            name = f"{low:g} to {high:g} h" if np.isfinite(high) else f"{low:g} h on"
            bands.append(judge.line(name, part, SHOWN))
    paths = history.paths()
    points = curve(paths, policy, thresholds(paths))
    return ModelFigures(
        history,
        evaluate(scores, resamples, SEED, tuple(METRICS)),
        bands,
        list(judge_subgroups(history.rows, scores, judge, SHOWN)),
        bins(scores.y, scores.probability),
        policy,
        burden(paths, policy),
        points,
        within_budget(points, per_patient_day),
    )


def compare(champion: History, challenger: History, resamples: int) -> Comparison:
    """The challenger's gains on the readings that both models predicted, by paired bootstrap.
    Raises NoHistory if there is no such reading."""
    both = champion.rows.merge(
        challenger.rows[["seq", "probability"]], on="seq", suffixes=("", "_other")
    )
    if both.empty:
        raise NoHistory(f"{champion.version} and {challenger.version} share no reading")
    each = (1 / both.groupby(KEY)["seq"].transform("size")).to_numpy()
    y, patients = both["y"].to_numpy(np.int64), both["pat_id"].to_numpy(np.int64)
    one = Scores(y, both["probability"].to_numpy(), patients, each)
    other = Scores(y, both["probability_other"].to_numpy(), patients, each)
    gains = _gains(one, other, resamples)
    return Comparison(str(challenger.version), len(both), *gains)


def _gains(one: Scores, other: Scores, resamples: int) -> list[Figure]:
    """The gains of `other` over `one` in AUROC and Brier score, with intervals from the same
    bootstraps."""
    orders = [np.argsort(-scores.probability, kind="stable") for scores in (one, other)]
    exact = [
        (s.y[o], s.probability[o], s.weights[o]) for s, o in zip((one, other), orders, strict=True)
    ]
    cells = [Cells.of(s.y, s.probability, s.patients, s.weights) for s in (one, other)]

    def gains(champion: Weighed, challenger: Weighed) -> tuple[float, float]:
        auroc, brier = METRICS["auroc"], METRICS["brier"]
        return auroc(*challenger) - auroc(*champion), brier(*champion) - brier(*challenger)

    # The same seed draws the same patients for both models.
    weights = zip(*(each.redrawn(resamples, SEED) for each in cells), strict=True)
    drawn = [
        gains(*((each.y, each.p, w) for each, w in zip(cells, pair, strict=True)))
        for pair in weights
        if pair[0] @ cells[0].y > 0 and pair[0] @ (1 - cells[0].y) > 0
    ]
    columns: Sequence[tuple[float, ...]] = list(zip(*drawn, strict=True)) or [(), ()]
    pairs = zip(gains(*exact), columns, strict=True)
    return [figure(value, list(column)) for value, column in pairs]
