"""Bootstraps of whole patients.

A bootstrap changes only the weights of the rows, so each patient's rows are counted once, by cells.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from training.calibration import log_odds
from training.progress import progress

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

#: Rows whose log odds round to the same hundredth are in one cell. On 164,000 readings this moves
#: the ends of an interval by at most 1 % of its width.
CELLS = 100


@dataclass(frozen=True)
class Cells:
    """Groups of rows with the same outcome and almost the same probability, highest first.

    y and p: of each cell. weight: of each patient's rows in each cell,
    shape (patients, cells).
    """

    y: Integers
    p: Floats
    weight: csr_array

    @classmethod
    def of(cls, y: Integers, p: Floats, patients: Integers, weight: Floats) -> "Cells":
        """The cells of rows; scores that are not probabilities are grouped by their value."""
        probabilities = p.min() >= 0 and p.max() <= 1
        level = np.rint(log_odds(p) * CELLS) if probabilities else p
        _, level = np.unique(-level, return_inverse=True)
        cells, cell = np.unique(2 * level + y, return_inverse=True)
        # Both outcomes of a level have the same probability, so they are ties in a ranking.
        middle = np.bincount(level, p) / np.bincount(level)
        _, patient = np.unique(patients, return_inverse=True)
        shape = (patient.max() + 1, len(cells))
        counts = csr_array((weight, (patient, cell)), shape)
        return cls(cells % 2, middle[cells // 2], counts)

    def redrawn(self, resamples: int, seed: int) -> Iterator[Floats]:
        """The cells' weights in each bootstrap."""
        for count in _counts(self.weight.shape[0], resamples, seed):
            yield count @ self.weight


def redrawn(patients: Integers, weight: Floats, resamples: int, seed: int) -> Iterator[Floats]:
    """The rows' weights in each bootstrap: how often the row's patient was drawn."""
    _, patient = np.unique(patients, return_inverse=True)
    for count in _counts(patient.max() + 1, resamples, seed):
        yield weight * count[patient]


def _counts(patients: int, resamples: int, seed: int) -> Iterator[Integers]:
    """How often each patient is drawn, the same for each use of a seed."""
    draw = np.random.default_rng(seed)
    for _ in progress(range(resamples), "bootstraps"):
        yield np.bincount(draw.integers(patients, size=patients), minlength=patients)
