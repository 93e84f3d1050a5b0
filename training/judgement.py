"""All figures of a model's predictions on rows that it was not fitted to."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from training import budget, groups, rows, utility
from training.arrays import Floats
from training.calibration import bins
from training.config import Label
from training.database import KEY
from training.evaluation import Judge, Line, Scores
from training.rows import Rows
from training.stream import Stream
from training.thresholds import OperatingPoint, operating_point
from wire.alarms import Policy
from wire.features import Feature

Predict = Callable[[Floats], Floats]

#: Maximum number of test stays that are evaluated at every reading, as in service.
CONTINUOUS_STAYS = 1000
#: Maximum number of hours that have their own line of figures.
MOST_HOURS = 24


@dataclass
class Judgement:
    """The figures of a model on the test rows.

    test: the test rows of all sample hours. scores: the predictions for these rows. here: those at
    the report's hour. headline, hours, subgroups: lines of figures over all rows, per hour and per
    subgroup. known: lines with and without each channel. stress: lines with channels removed.
    points: the figures at each threshold. alarms: alarms per patient and day at each threshold;
    empty without an alarm rule.
    """

    test: Rows
    scores: Scores
    here: Scores
    headline: list[Line] = field(default_factory=list)
    hours: list[Line] = field(default_factory=list)
    subgroups: list[Line] = field(default_factory=list)
    known: list[Line] = field(default_factory=list)
    stress: list[Line] = field(default_factory=list)
    points: dict[str, OperatingPoint] = field(default_factory=dict)
    alarms: dict[str, float] = field(default_factory=dict)

    @property
    def bins(self) -> list[tuple[float, float, float, float]]:
        """Calibration by tenths at the report's hour."""
        return bins(self.here.y, self.here.probability)


@dataclass(frozen=True)
class Question:
    """The data and the settings of an evaluation. hours: the evaluated sample hours. hour: the
    sample hour at which most figures are computed. alarm: the rule by which the alarms at each
    threshold are counted; None to count none.
    """

    stream: Stream
    outcomes: pd.DataFrame
    label: Label
    features: list[Feature]
    hours: tuple[int, ...]
    hour: int
    resamples: int
    seed: int
    alarm: Policy | None = None

    @property
    def judge(self) -> Judge:
        """The Judge with the resamples and the seed of this question."""
        return Judge(self.resamples, self.seed)


def judge(
    question: Question, predict: Predict, test: Rows, name: str, thresholds: dict[str, float]
) -> Judgement:
    """Computes all figures of `predict` on the test rows. name: describes the training and test
    data. thresholds: by name.
    """
    features, judge, hour = question.features, question.judge, question.hour
    scores = Scores(test.y, predict(test.x), test.patients)
    at_hour = (test.about["hour"] == hour).to_numpy()
    here, now = scores.where(at_hour), test.where(at_hour)
    result = Judgement(test, scores, here)
    result.headline.append(judge.line(f"{name}, at {hour} h", here))
    if len(question.hours) > 1:
        result.headline.append(judge.line(f"{name}, all sample hours", scores))
        line, paths = _every_reading(question, predict, test)
        result.headline.append(line)
        if question.alarm:
            result.alarms = {
                label: budget.alarms_per_day(paths, budget.with_threshold(question.alarm, at))
                for label, at in thresholds.items()
            }
    if "utility" in thresholds:
        figure = utility.evaluate(test, scores, thresholds["utility"], judge)
        result.headline[min(1, len(result.headline) - 1)].figures["utility"] = figure
    # The last hour is always included.
    for at in question.hours[:: -math.ceil(len(question.hours) / MOST_HOURS)][::-1]:
        part = scores.where((test.about["hour"] == at).to_numpy())
        if part.both:
            result.hours.append(judge.line(str(at), part))
    result.subgroups += groups.judge_subgroups(now.about, here, judge)
    result.known += groups.judge_known(test, scores, features, judge)
    result.stress += groups.judge_removal(predict, test, scores, features, judge)
    result.points = {
        label: operating_point(here, at, judge.resamples, judge.seed)
        for label, at in thresholds.items()
    }
    return result


def _every_reading(
    question: Question, predict: Predict, test: Rows
) -> tuple[Line, list[budget.Path]]:
    """Computes the figures at every reading of some test stays, as in service, and the paths for
    counting alarms.

    The weights depend on the label. For a label of the stay, each stay has the same weight. For an
    event within a number of hours, each hour of a stay has the same weight. With one weight per
    stay, the hours of a stay that ends with the event would weigh more, because there are fewer of
    them.
    """
    stream, label = question.stream, question.label
    stays = test.about[KEY].drop_duplicates()
    stays = stays.sample(min(CONTINUOUS_STAYS, len(stays)), random_state=question.seed)
    found = rows.every_reading(stream, question.outcomes, label, question.features, stays)
    probability = predict(found.x)
    unit, word = found.about[KEY].copy(), "stay"
    if label.within_hours is not None:
        unit["hour"] = stream.readings.loc[found.about.index, "measured_at"].dt.floor("h")
        word = "hour of a stay"
    share = unit.groupby(list(unit)).ngroup().to_numpy()
    weight = 1 / np.bincount(share)[share]
    scores = Scores(found.y, probability, found.patients, weight)
    patients = len(np.unique(found.patients))
    name = (
        f"At every reading of {patients:,} of these patients, with the same weight for each {word}"
    )
    paths = budget.paths(stream, found, probability) if question.alarm else []
    return question.judge.line(name, scores), paths
