"""Finds the slots of values: between which two edges of its feature each value lies."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

# Cells per feature.
_CELLS = 4096
# Number of edges in a cell that are compared for all features at once.
_CROWD = 2


@dataclass(frozen=True)
class Slots:
    """The slots of several features, feature by feature: below the first edge, from each edge to
    the next, and the last for a missing value.

    Between a feature's first and last edge are cells of equal width, and a further cell is for a
    missing value. A value is greater than the edges in lower cells, and less than those in higher
    cells, because the number of its cell, factor · value + offset, never falls as the value rises,
    even when rounded. Only the edges in its own cell are compared. Unlike a binary search, this
    does not branch, and it takes one pass for all features.

    edges: each feature's edges, ascending; the last is infinity. starts: each feature's first slot.
    factors, offsets, lowest: shape (features,). cells: the slot of a value below all edges in the
    cell. upper: the upper edge of each slot, NaN for a missing value. crowded: the features with
    more than _CROWD edges in a cell.
    """

    edges: tuple[Values, ...]
    starts: NDArray[np.intp]
    factors: Values
    offsets: Values
    lowest: Values
    cells: NDArray[np.intp]
    upper: Values
    crowded: tuple[int, ...]

    def of(self, rows: Values) -> NDArray[np.intp]:
        """The slots of finite or missing values; both shapes are (rows, features)."""
        cells = _cells(rows, self.factors, self.offsets, self.lowest)
        slots = self.cells.take(cells, mode="clip")
        for _ in range(_CROWD):
            slots += rows >= self.upper.take(slots, mode="clip")
        for feature in self.crowded:
            # NaN sorts after the last edge.
            found = self.edges[feature].searchsorted(rows[:, feature], "right")
            slots[:, feature] = found + self.starts[feature]
        return slots


def slots_between(edges: Sequence[Values]) -> Slots:
    """The slots of features with these edges, of which each feature has at least one."""
    count = len(edges)
    starts = np.cumsum([0, *(len(each) + 2 for each in edges[:-1])])
    first, last = np.array([(each[0], each[-1]) for each in edges]).T
    with np.errstate(over="ignore", divide="ignore"):
        factors = _CELLS / (last - first)
    # With a single edge, or edges too close or too far apart, all values are in one cell.
    factors[~np.isfinite(factors)] = 0.0
    lowest = np.arange(count, dtype=np.float64) * (_CELLS + 1)
    offsets = lowest - first * factors
    cells = np.empty((count, _CELLS + 1), dtype=np.intp)
    crowded = []
    for i, own in enumerate(edges):
        place = _cells(own, factors[i], offsets[i], lowest[i]) - int(lowest[i])
        cells[i, :-1] = starts[i] + place.searchsorted(np.arange(_CELLS))
        cells[i, -1] = starts[i] + len(own) + 1
        if np.bincount(place).max() > _CROWD:
            crowded.append(i)
    return Slots(
        edges=tuple(np.append(own, np.inf) for own in edges),
        starts=starts,
        factors=factors,
        offsets=offsets,
        lowest=lowest,
        cells=cells.ravel(),
        upper=np.concatenate([np.append(own, (np.inf, np.nan)) for own in edges]),
        crowded=tuple(crowded),
    )


def _cells(values: Values, factors: Values, offsets: Values, lowest: Values) -> NDArray[np.intp]:
    """The cells of values, clipped to their feature's cells."""
    with np.errstate(over="ignore"):
        cells = values * factors
    cells += offsets
    # NaN remains NaN, except in the last step. `clip` is slower, because it branches.
    np.maximum(cells, lowest, out=cells)
    np.minimum(cells, lowest + (_CELLS - 1), out=cells)
    np.fmin(cells, lowest + _CELLS, out=cells)
    return cells.astype(np.intp)
