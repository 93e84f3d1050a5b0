"""Computes all figures of a backtest: of each model, and of each challenger compared with the
champion.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from backtest.burden import Burden, burden, curve, thresholds, within_budget
from backtest.history import KEY, History, NoHistory
from training.calibration import bins
from training.evaluation import (
    METRICS,
    Figure,
    Floats,
    Judge,
    Line,
    Scores,
    evaluate,
    figure,
    redrawn,
)
from training.groups import FEWEST_EVENTS, judge_subgroups, patients_with_event
from training.recalibrate import Recalibration
from wire.alarms import Policy

BANDS = ((0.0, 6.0), (6.0, 24.0), (24.0, 48.0), (48.0, 96.0), (96.0, 168.0), (168.0, np.inf))
SHOWN = ("auroc", "auprc", "brier", "calibration_slope", "calibration_intercept")
SEED = 1


@dataclass(frozen=True)
class ModelFigures:
    """A model's figures over all readings, by hour of the stay, by subgroup, and of its alarms."""

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
    """A challenger's gain over the champion on the same readings; positive is better."""

    challenger: str
    readings: int
    auroc: Figure
    brier: Figure

    @property
    def verdict(self) -> str:
        """By the interval of the AUROC's gain."""
        if self.auroc.low > 0:
            return "better"
        return "worse" if self.auroc.high < 0 else "not told apart"


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
    """Computes one model's figures. Raises NoHistory when its readings lack one of the outcomes."""
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
    """The challenger's gains on the readings that both models predicted, by paired bootstrap."""
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
    """Gains of `other` in AUROC and Brier score, with intervals from the same bootstraps."""
    weight = one.weights
    orders = [np.argsort(-scores.probability, kind="stable") for scores in (one, other)]

    def gains(w: Floats) -> tuple[float, float]:
        values = [
            [METRICS[name](s.y[o], s.probability[o], w[o]) for name in ("auroc", "brier")]
            for s, o in zip((one, other), orders, strict=True)
        ]
        return values[1][0] - values[0][0], values[0][1] - values[1][1]

    drawn = [
        gains(w)
        for w in redrawn(one.patients, weight, resamples, SEED)
        if w @ one.y > 0 and w @ (1 - one.y) > 0
    ]
    columns: Sequence[tuple[float, ...]] = list(zip(*drawn, strict=True)) or [(), ()]
    pairs = zip(gains(weight), columns, strict=True)
    return [figure(value, list(column)) for value, column in pairs]
