"""Figures of a model by subgroups of patients and by known channels."""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from training import models
from training.arrays import Flags, Floats
from training.config import Model
from training.evaluation import METRICS, RANKING, Figure, Judge, Line, Scores
from training.progress import progress
from training.removal import channels, removed, removed_at_random
from training.rows import Rows, usable
from wire.features import Feature

Predict = Callable[[Floats], Floats]

AGE_BANDS = {
    "age under 50": (0, 50),
    "age 50 to 64": (50, 65),
    "age 65 to 79": (65, 80),
    "age 80 and over": (80, 200),
}
SEXES = {"0": "female", "1": "male", "f": "female", "m": "male"}
#: A subgroup is left out if it has fewer rows, or fewer patients with the event.
FEWEST_EVENTS = 20
FEWEST_ROWS = 100
KNOWN = ("predicted", "prevalence", "calibration_intercept", "auroc", "brier")
REMOVED = ("auroc", "auprc", "brier", "calibration_slope", "calibration_intercept")
#: Share of the channels that is removed at random from each row.
REMOVED_SHARE = 0.3


def judge_subgroups(
    about: pd.DataFrame,
    scores: Scores,
    judge: Judge,
    metrics: tuple[str, ...] = tuple(METRICS),
) -> Iterator[Line]:
    """Figures of the subgroups by age, sex and unit, if they are large enough. about: one row per
    score, with the columns by which to group; a column that is missing gives no subgroups.
    """
    for name, group in _subgroups(about):
        part = scores.where(group)
        enough = len(part.y) >= FEWEST_ROWS and patients_with_event(part) >= FEWEST_EVENTS
        if enough and part.both:
            yield judge.line(name, part, metrics)


def patients_with_event(scores: Scores) -> int:
    """The number of patients with an event in any row."""
    return len(np.unique(scores.patients[scores.y == 1]))


def _subgroups(about: pd.DataFrame) -> Iterator[tuple[str, Flags]]:
    if "age" in about:
        age = about["age"].to_numpy(np.float64)
        for name, (low, high) in AGE_BANDS.items():
            yield name, (age >= low) & (age < high)
    for column in ("sex", "unit"):
        if column in about:
            values = about[column].astype(str).to_numpy()
            for value in np.unique(values):
                name = SEXES.get(value.casefold(), value) if column == "sex" else value
                yield f"{column}: {name}", values == value


def absent(rows: Rows, features: list[Feature], parameter: str) -> Flags:
    """Flags the rows in which the parameter has no value: all its features are missing, or all its
    counts are 0 if it has no other features."""
    own = [f.parameter == parameter and f.aggregation != "count" for f in features]
    if any(own):
        return np.asarray(np.isnan(rows.x[:, own]).all(axis=1))
    counts = [f.parameter == parameter for f in features]
    return np.asarray((rows.x[:, counts] == 0).all(axis=1))


def judge_known(rows: Rows, scores: Scores, features: list[Feature], judge: Judge) -> list[Line]:
    """For each channel, the figures of the rows with it and of the rows without it; small groups
    are left out."""
    lines = []
    for parameter in channels(features):
        without = absent(rows, features, parameter)
        for name, group in ((f"{parameter} known", ~without), (f"no {parameter}", without)):
            if group.sum() >= FEWEST_ROWS:
                lines.append(judge.line(name, scores.where(group), KNOWN))
    return lines


def judge_removal(
    predict: Predict, rows: Rows, scores: Scores, features: list[Feature], judge: Judge
) -> list[Line]:
    """Figures of the rows as charted, with each channel removed in turn, and with a random share of
    the channels removed from each row.
    """
    lines = [judge.line("as charted", scores, REMOVED)]
    everywhere = np.ones(len(rows.y), dtype=bool)

    def line(name: str, x: Floats) -> Line:
        poorer = Scores(scores.y, predict(x), scores.patients, scores.weight)
        return judge.line(name, poorer, REMOVED)

    for parameter in channels(features):
        x = rows.x.copy()
        removed(x, features, parameter, everywhere)
        lines.append(line(f"{parameter} removed", x))
    x = removed_at_random(rows.x, features, REMOVED_SHARE, judge.seed)
    lines.append(line(f"{REMOVED_SHARE:.0%} of all channels removed at random", x))
    return lines


def judge_channels(
    model: Model, train: Rows, test: Rows, features: list[Feature], judge: Judge
) -> tuple[list[Line], list[Line]]:
    """Two lists of figures. The first: a model with all features, and models without one channel or
    without one feature of the stay, such as age. The second: models with only one channel and the
    features of the stay. Because each line needs its own fit, the models are uncalibrated gradient
    boosting.
    """

    def line(name: str, used: list[Feature]) -> Line:
        columns = [feature in used for feature in features]
        part = Rows(train.x[:, columns], train.y, train.about)
        kept, _ = usable(part, used)
        columns = [feature in kept for feature in features]
        part = Rows(train.x[:, columns], train.y, train.about)
        fitted = models.Fitted(models.trees(model, part, kept))
        scores = Scores(test.y, fitted.predict(test.x[:, columns]), test.patients)
        return judge.line(name, scores, RANKING)

    without, alone = [line("everything", features)], []
    stay = [feature for feature in features if feature.parameter is None]
    names = [feature.name for feature in stay]
    for parameter in progress(channels(features), "models without a channel"):
        own = [feature for feature in features if feature.parameter == parameter]
        rest = [feature for feature in features if feature.parameter != parameter]
        if len(rest) > len(stay):
            without.append(line(f"without {parameter}", rest))
        alone.append(line(" and ".join([parameter, *names]), [*stay, *own]))
    for each in stay:
        without.append(line(f"without {each.name}", [f for f in features if f is not each]))
    return without, alone


def learning_curve(
    model: Model,
    train: Rows,
    test: Rows,
    features: list[Feature],
    shares: tuple[float, ...],
    judge: Judge,
) -> Iterator[Line]:
    """Figures of models that were trained on shares of the training patients."""
    patients = np.random.default_rng(model.seed).permutation(np.unique(train.patients))
    for share in progress(shares, "learning curve"):
        chosen = patients[: max(1, round(share * len(patients)))]
        part = train.where(np.isin(train.patients, chosen))
        kept, _ = usable(part, features)
        columns = [feature in kept for feature in features]
        fitted = models.fit(model, Rows(part.x[:, columns], part.y, part.about), kept)
        scores = Scores(test.y, fitted.predict(test.x[:, columns]), test.patients)
        yield judge.line(f"{len(chosen):,} patients", scores)


def score_lines(names: tuple[str, ...], test: Rows, ours: Scores, judge: Judge) -> Iterator[Line]:
    """Figures of severity scores that the data set contains, such as SAPS-I, on the rows that have
    them."""
    for name in names:
        values = test.about[name].map(_number).to_numpy(np.float64)
        known = ~np.isnan(values)
        theirs = Scores(test.y[known], values[known], test.patients[known])
        here = ours.where(known)
        figures: dict[str, Figure] = judge.line(name, theirs, RANKING).figures
        figures["auroc_gain"] = judge.gain(here, theirs)
        note = f"a severity score in the source; {known.sum():,} of {len(known):,} rows have one"
        yield Line(name, len(theirs.y), int(theirs.y.sum()), figures, note)


def _number(text: object) -> float:
    try:
        return float(str(text))
    except ValueError:
        return np.nan
