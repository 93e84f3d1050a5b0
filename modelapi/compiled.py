"""The compiled form of trained models: curves and trees in one table.

log odds = intercept + the sum of one curve per feature + the sum of one leaf per tree.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import factorial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from modelapi.curves import Curve
from modelapi.predictor import EXPLAINED_ROWS, Explanation, Rows, logistic
from modelapi.slots import Slots, slots_between
from modelapi.trees import Trees

# Number of rows per block. The masks of a block fit into the processor's cache.
_BLOCK = 512
# Fewer rows take less time with one call for all features, more rows with one call per feature.
_FEW = 96
_LOWEST = np.finfo(np.float64).min


@dataclass(frozen=True)
class Compiled:
    """A sum of curves and trees.

    The edges of a feature's curve and splits divide its values into slots. The tables have one
    entry per slot. origins: shape (slots,). masks: shape (slots, trees). powers: shape
    (degree + 1, slots), or (0, slots) if all curves are 0. leaves: shape (trees, leaves).
    reference: shape (features,), NaN where missing.
    """

    intercept: float
    slots: Slots
    origins: Rows
    powers: Rows
    masks: NDArray[np.unsignedinteger]
    leaves: Rows
    reference: Rows
    explained_rows: ClassVar[int] = EXPLAINED_ROWS

    def probability(self, rows: Rows) -> Rows:
        return logistic(self.log_odds(rows))

    def outputs(self, rows: Rows) -> dict[str, NDArray[np.generic]]:
        return {"probability": self.probability(rows)}

    def log_odds(self, rows: Rows) -> Rows:
        """The log odds, shape (rows,). Sums run along a row, so a row's value does not depend on
        its batch.
        """
        slots = self.slots.of(rows)
        curves = self._curve_values(rows, slots).sum(axis=1)
        result: Rows = self.intercept + curves + self._leaf_values(slots).sum(axis=1)
        return result

    def explain(self, rows: Rows) -> Explanation:
        """Exact Shapley values of the log odds against the reference row."""
        rows = np.vstack([self.reference, rows])
        slots = self.slots.of(rows)
        curves = self._curve_values(rows, slots)
        contributions = curves[1:] - curves[0]
        allowed = self._allowed(slots)
        for i, row in enumerate(allowed[1:]):
            contributions[i] += self._shapley(row, allowed[0])
        base = self.intercept + curves[0].sum() + self._leaf_values(slots[:1]).sum()
        return Explanation(
            method="exact Shapley values against the reference",
            scale="log odds",
            base=np.full(len(contributions), base),
            contributions=contributions,
        )

    def _curve_values(self, rows: Rows, slots: NDArray[np.intp]) -> Rows:
        if not len(self.powers):
            return np.zeros(rows.shape)
        # A missing value becomes a number, which the powers of its slot multiply by 0. `np.where`
        # is slower, because it branches.
        distance = np.fmax(rows, _LOWEST) - self.origins.take(slots, mode="clip")
        values: Rows = self.powers[-1].take(slots, mode="clip")
        for power in self.powers[-2::-1]:
            values *= distance
            values += power.take(slots, mode="clip")
        return values

    def _leaf_values(self, slots: NDArray[np.intp]) -> Rows:
        trees, width = self.leaves.shape
        first = np.arange(trees) * width
        values = np.empty((len(slots), trees))
        for i in range(0, len(slots), _BLOCK):
            # One bit remains; its position is the number of the leaf.
            leaf = np.bitwise_count(self._reached(slots[i : i + _BLOCK]) - 1)
            self.leaves.take(first + leaf, mode="clip", out=values[i : i + _BLOCK])
        return values

    def _reached(self, slots: NDArray[np.intp]) -> NDArray[Any]:
        """The masks of the one leaf per tree that each row reaches, shape (rows, trees)."""
        masks: NDArray[Any]
        if len(slots) < _FEW:
            masks = self.masks.take(slots, axis=0, mode="clip")
            return np.asarray(np.bitwise_and.reduce(masks, axis=1))
        columns = iter(slots.T)
        masks = self.masks.take(next(columns), axis=0, mode="clip")
        for column in columns:
            masks &= self.masks.take(column, axis=0, mode="clip")
        return masks

    @cached_property
    def _pairs(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The pairs (tree, feature) in which the tree splits on the feature, in order of tree."""
        lowest = np.bitwise_and.reduceat(self.masks, self.slots.starts, axis=0)
        highest = np.bitwise_or.reduceat(self.masks, self.slots.starts, axis=0)
        trees, features = np.nonzero((lowest != highest).T)
        return trees, features

    def _allowed(self, slots: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Whether the feature of each pair allows each row to reach each leaf, shape (rows, pairs,
        leaves)."""
        trees, features = self._pairs
        masks = self.masks[slots[:, features], trees]
        bits = np.arange(self.leaves.shape[1], dtype=self.masks.dtype)
        return (masks[..., np.newaxis] >> bits & 1).astype(bool)

    def _shapley(self, row: NDArray[np.bool_], reference: NDArray[np.bool_]) -> Rows:
        """The contributions of the features to the sum of the trees, shape (features,). Both
        arguments have the shape (pairs, leaves).

        Each feature has the row's or the reference's value. If a feature allows a leaf with only
        one of the two, the leaf is reached only if the feature has this value. The Shapley weight
        depends only on two counts: how many features must have the row's value, and how many the
        reference's (Sundararajan and Najmi 2020, Laberge and Pequignot 2022).
        """
        trees, features = self._pairs
        result = np.zeros(len(self.reference))
        if not len(trees):
            return result
        used, first = np.unique(trees, return_index=True)
        for_row, against_row = row & ~reference, reference & ~row
        dead = np.logical_or.reduceat(~row & ~reference, first, axis=0)
        values = np.where(dead, 0.0, self.leaves[used])
        gains = np.add.reduceat(for_row, first, axis=0, dtype=np.intp)
        losses = np.add.reduceat(against_row, first, axis=0, dtype=np.intp)
        of_pair = np.searchsorted(used, trees)
        gain = (values * _WEIGHTS[gains - 1, losses])[of_pair]
        loss = (values * _WEIGHTS[gains, losses - 1])[of_pair]
        shares = np.where(for_row, gain, 0.0) - np.where(against_row, loss, 0.0)
        np.add.at(result, features, shares.sum(axis=1))
        return result


# [a, b] = a! b! / (a + b + 1)!; a path through a tree of 64 leaves has at most 63 features.
_WEIGHTS = np.array(
    [[factorial(a) * factorial(b) / factorial(a + b + 1) for b in range(64)] for a in range(64)]
)


def assemble(intercept: float, curves: Sequence[Curve], trees: Trees, reference: Rows) -> Compiled:
    """Combines one curve per feature and the trees into one table."""
    edges, origins, powers, masks = [], [], [], []
    degree = max(curve.powers.shape[1] for curve in curves)
    for feature, curve in enumerate(curves):
        cuts = np.union1d(curve.edges, trees.thresholds(feature))
        # One value per slot: one below the first edge, each edge, and NaN for a missing value.
        values = np.concatenate([[np.nextafter(cuts[0], -np.inf)], cuts, [np.nan]])
        piece = np.clip(curve.edges.searchsorted(values[:-1], "right") - 1, 0, None)
        table = np.zeros((len(values), degree))
        table[:-1, : curve.powers.shape[1]] = curve.powers[piece]
        table[-1, 0] = curve.missing
        edges.append(cuts)
        origins.append(np.append(curve.edges[piece], 0.0))
        powers.append(table)
        masks.append(trees.masks(feature, values))
    if not any(table.any() for table in powers):
        powers = [table[:, :0] for table in powers]
    return Compiled(
        intercept=intercept + trees.intercept,
        slots=slots_between(edges),
        origins=np.concatenate(origins),
        powers=np.ascontiguousarray(np.concatenate(powers).T),
        masks=np.concatenate(masks),
        leaves=trees.leaves,
        reference=reference,
    )
