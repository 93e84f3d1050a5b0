"""Bootstraps of whole patients.

A bootstrap changes only the weights of the rows. So the rows are grouped into cells once, for all
bootstraps.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from training.arrays import Floats, Integers
from training.calibration import log_odds
from training.progress import progress

#: Rows whose log odds round to the same hundredth are in one cell. With 164,000 readings, this
#: rounding moves the ends of an interval by at most 1 % of its width.
CELLS = 100


@dataclass(frozen=True)
class Cells:
    """Groups of rows with the same outcome and almost the same probability, highest first. y, p:
    the outcome and the probability of each cell. weight: the weight of each patient's rows in each
    cell, shape (patients, cells).
    """

    y: Integers
    p: Floats
    weight: csr_array

    @classmethod
    def of(cls, y: Integers, p: Floats, patients: Integers, weight: Floats) -> "Cells":
        """Groups rows into cells. Scores that are not probabilities are grouped by their value."""
        probabilities = p.min() >= 0 and p.max() <= 1
        level = np.rint(log_odds(p) * CELLS) if probabilities else p
        _, level = np.unique(-level, return_inverse=True)
        cells, cell = np.unique(2 * level + y, return_inverse=True)
        # The two cells of a level have the same probability, so that they are ties in a ranking.
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
    """The rows' weights in each bootstrap: the row's weight times the number of times that its
    patient was drawn."""
    _, patient = np.unique(patients, return_inverse=True)
    for count in _counts(patient.max() + 1, resamples, seed):
        yield weight * count[patient]


def _counts(patients: int, resamples: int, seed: int) -> Iterator[Integers]:
    """The number of times that each patient is drawn; the same seed gives the same draws."""
    draw = np.random.default_rng(seed)
    for _ in progress(range(resamples), "bootstraps"):
        yield np.bincount(draw.integers(patients, size=patients), minlength=patients)
