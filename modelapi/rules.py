"""Scorecards: sums of points by band of each feature, as in NEWS2 and qSOFA.

The tables are data in `models/<name>/<version>/scorecard.json`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from modelapi.features import Feature
from modelapi.predictor import EXPLAINED_ROWS, Explanation, Rows


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Points for one feature. A value is rounded half up to `decimals`, as on a chart. It belongs
    to the first band whose upper bound it does not exceed, or else to the last band. `points` has
    one more entry than `bounds`.
    """

    feature: str
    bounds: tuple[float, ...]
    points: tuple[int, ...]
    decimals: int = 0

    def __post_init__(self) -> None:
        if len(self.points) != len(self.bounds) + 1 or list(self.bounds) != sorted(self.bounds):
            raise ValueError(
                f"{self.feature}: bounds must ascend, and points must have one more entry"
            )

    def score(self, values: Rows) -> Rows:
        """The points of each value; 0 for a missing value. Values and points have the shape
        (rows,)."""
        steps = 10**self.decimals
        with np.errstate(over="ignore"):
            charted = np.floor(values * steps + 0.5)
        band = np.searchsorted(np.round(np.array(self.bounds) * steps), charted, side="left")
        points = np.array(self.points, dtype=np.float64)[np.minimum(band, len(self.bounds))]
        return np.where(np.isnan(values), 0.0, points)


class ScorecardFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of scorecard.json. maximum: the highest possible score; score / maximum is
    `probability`.
    """

    source: str
    maximum: int
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Scorecard:
    """Serves a score as a model, with the outputs probability (score / maximum), score, and missing
    (the names of the features without a value)."""

    parts: tuple[Part, ...]
    maximum: int
    explained_rows: ClassVar[int] = EXPLAINED_ROWS

    def points(self, rows: Rows) -> Rows:
        """The points of each part, shape (rows, features)."""
        return np.stack([part.score(rows[:, i]) for i, part in enumerate(self.parts)], axis=1)

    def outputs(self, rows: Rows) -> dict[str, NDArray[np.generic]]:
        score = self.points(rows).sum(axis=1)
        names = [part.feature for part in self.parts]
        absent = [
            ",".join(name for name, gone in zip(names, row, strict=True) if gone)
            for row in np.isnan(rows).tolist()
        ]
        return {
            "probability": score / self.maximum,
            "score": score.astype(np.int64),
            "missing": np.array(absent, dtype=np.str_),
        }

    def explain(self, rows: Rows) -> Explanation:
        return Explanation(
            method="exact points of the score's parts",
            scale="points",
            base=np.zeros(len(rows)),
            contributions=self.points(rows),
        )


def from_json(content: bytes, features: Sequence[Feature]) -> Scorecard:
    """Reads the score in scorecard.json. Raises ValueError if it does not fit the features."""
    document = msgspec.json.decode(content, type=ScorecardFile)
    if [part.feature for part in document.parts] != [feature.name for feature in features]:
        raise ValueError("parts: these must be the manifest's features, in the manifest's order")
    return Scorecard(document.parts, document.maximum)
