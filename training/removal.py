"""Removes channels, to train and to test models with missing inputs."""

import numpy as np
import pandas as pd

from training.arrays import Flags, Floats
from training.rows import Rows
from wire.features import Feature


def channels(features: list[Feature]) -> list[str]:
    """The parameters of the features, without duplicates."""
    return list(dict.fromkeys(f.parameter for f in features if f.parameter))


def removed(x: Floats, features: list[Feature], parameter: str, rows: Flags) -> None:
    """Removes one parameter from the chosen rows in place, as if it had not been charted."""
    for column, feature in enumerate(features):
        if feature.parameter == parameter:
            without = 0.0 if feature.aggregation == "count" else feature.fill
            x[rows, column] = np.nan if without is None else without


def removed_at_random(x: Floats, features: list[Feature], share: float, seed: int) -> Floats:
    """A copy of the rows, with a random share of the channels removed from each."""
    draw = np.random.default_rng(seed)
    x = x.copy()
    for parameter in channels(features):
        removed(x, features, parameter, draw.random(len(x)) < share)
    return x


def with_removed(rows: Rows, features: list[Feature], share: float, seed: int) -> Rows:
    """The rows and, if `share` is above 0, a copy of each row with channels removed at random."""
    if not share:
        return rows
    copy = removed_at_random(rows.x, features, share, seed)
    return Rows(np.vstack([rows.x, copy]), np.tile(rows.y, 2), pd.concat([rows.about, rows.about]))
