"""The interface of all kinds of models."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

# The maximum number of rows in one request for explanations.
EXPLAINED_ROWS = 100

Rows = NDArray[np.float64]
"""Feature values, shape (rows, features), NaN where missing."""


@dataclass(frozen=True)
class Explanation:
    """The explanation of predictions. For each row, the base plus the sum of the contributions is
    the row's value on `scale`. base: shape (rows,); contributions: shape (rows, features).
    """

    method: str
    scale: str
    base: Rows
    contributions: Rows


class Predictor(Protocol):
    """Computes outputs from rows of features in the order of the manifest."""

    @property
    def explained_rows(self) -> int:
        """The maximum number of rows per call of `explain`."""
        ...

    def outputs(self, rows: Rows) -> dict[str, NDArray[np.generic]]:
        """Computes the outputs, by name, each of shape (rows,)."""
        ...

    def explain(self, rows: Rows) -> Explanation:
        """Computes the contribution of each feature to each row's value."""
        ...


def logistic(log_odds: Rows) -> Rows:
    """1 / (1 + e^-x), without overflow, and accurate for small probabilities."""
    odds = np.exp(-np.abs(log_odds))
    result: Rows = np.where(log_odds >= 0, 1.0, odds) / (1.0 + odds)
    return result


def log_odds(probability: Rows) -> Rows:
    """The inverse of `logistic`."""
    result: Rows = np.log(probability) - np.log1p(-probability)
    return result
