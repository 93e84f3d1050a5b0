"""Where a model is weaker, and what each channel is worth to it."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tool.features import Feature
from training import models
from training.dataset import Rows, usable
from training.evaluation import RANKING, Judge, Line, Scores

Flags = NDArray[np.bool_]

AGE_BANDS = {
    "age under 50": (0, 50),
    "age 50 to 64": (50, 65),
    "age 65 to 79": (65, 80),
    "age 80 and over": (80, 200),
}
#: Of smaller groups the intervals say nothing.
FEWEST_EVENTS = 20
FEWEST_ROWS = 100
#: With more channels than this, groups by what is missing would be a page of noise.
MOST_CHANNELS = 8


def channels(features: list[Feature]) -> list[str]:
    """The parameters that the features are of, each once."""
    return list(dict.fromkeys(f.parameter for f in features if f.parameter))


def judge_subgroups(
    rows: Rows, scores: Scores, features: list[Feature], judge: Judge
) -> Iterator[Line]:
    """Figures by age, by unit, and for stays without a channel; rows and scores in step."""
    for name, group in _subgroups(rows, features):
        part = scores.where(group)
        if len(part.y) >= FEWEST_ROWS and part.both and part.y.sum() >= FEWEST_EVENTS:
            yield judge.line(name, part)


def _subgroups(rows: Rows, features: list[Feature]) -> Iterator[tuple[str, Flags]]:
    age = rows.about["age"].to_numpy()
    for name, (low, high) in AGE_BANDS.items():
        yield name, (age >= low) & (age < high)
    if "unit" in rows.about:
        unit = rows.about["unit"].astype(str).to_numpy()
        for name in np.unique(unit):
            yield f"unit: {name}", unit == name
    if len(channels(features)) <= MOST_CHANNELS:
        for parameter in channels(features):
            yield f"no {parameter} known", absent(rows, features, parameter)


def absent(rows: Rows, features: list[Feature], parameter: str) -> Flags:
    """Which rows know nothing of the parameter, whose counts may well be 0 there."""
    own = [f.parameter == parameter and f.aggregation != "count" for f in features]
    return np.asarray(np.isnan(rows.x[:, own]).all(axis=1))


def judge_channels(
    train: Rows, test: Rows, features: list[Feature], seed: int, judge: Judge
) -> tuple[list[Line], list[Line]]:
    """Each channel taken away, and each alone with age.

    By gradient boosting, uncalibrated: it is fitted as often as there are lines.
    """

    def line(name: str, used: list[Feature]) -> Line:
        columns = [feature in used for feature in features]
        part = Rows(train.x[:, columns], train.y, train.about)
        kept, _ = usable(part, used)
        columns = [feature in kept for feature in features]
        model = models.boosting(part, seed).fit(train.x[:, columns], train.y)
        probability = model.predict_proba(test.x[:, columns])[:, 1]
        return judge.line(name, Scores(test.y, probability, test.patients), RANKING)

    without, alone = [line("everything", features)], []
    age = [feature for feature in features if feature.parameter is None]
    for parameter in channels(features):
        own = [feature for feature in features if feature.parameter == parameter]
        rest = [feature for feature in features if feature.parameter != parameter]
        if len(rest) > len(age):
            without.append(line(f"without {parameter}", rest))
        alone.append(line(f"{parameter} and age" if age else parameter, [*age, *own]))
    if age:
        without.append(line("without age", [f for f in features if f.parameter is not None]))
    return without, alone
