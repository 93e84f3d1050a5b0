"""The trees of a compiled model, as bit masks.

Each leaf of a tree is one bit. The mask of a feature's value contains the leaves that the value can
lead to. The bitwise AND of the masks of all features is the one leaf that the row reaches (as in
QuickScorer, Lucchese et al. 2015).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

LEAVES = 64


@dataclass(frozen=True)
class Condition:
    """One split. left, right: the masks of the leaves below it; a value up to `threshold` leads to
    `left`, a greater value to `right`."""

    tree: int
    feature: int
    threshold: float
    left: int
    right: int
    missing_left: bool


@dataclass(frozen=True)
class Trees:
    """All trees of a model. conditions: all splits. leaves: the values of the leaves, shape (trees,
    leaves of the widest tree). full: for each tree, the mask of all its leaves, in the smallest
    integer type that holds it.
    """

    intercept: float
    conditions: tuple[Condition, ...]
    leaves: Values
    full: NDArray[Any]

    def thresholds(self, feature: int) -> Values:
        """For each split on the feature, the lowest value that leads to the right, ascending."""
        found = {each.threshold for each in self.conditions if each.feature == feature}
        limits = np.nextafter(sorted(found), np.inf)
        return limits[np.isfinite(limits)]

    def masks(self, feature: int, values: Values) -> NDArray[Any]:
        """The leaves that each value (NaN: missing) of a feature can lead to, shape (values,
        trees).
        """
        masks = np.tile(self.full, (len(values), 1))
        for each in self.conditions:
            if each.feature != feature:
                continue
            goes_left = np.where(np.isnan(values), each.missing_left, values <= each.threshold)
            lost = np.where(goes_left, np.uint64(each.right), np.uint64(each.left))
            masks[:, each.tree] &= ~lost.astype(masks.dtype)
        return masks


def none() -> Trees:
    """No trees."""
    return Trees(0.0, (), np.empty((0, 1)), np.empty(0, np.uint16))


def from_boosting(model: Any) -> Trees | None:
    """The trees of a HistGradientBoostingClassifier of two classes; None for another model, for
    categorical features, or if a tree has more than LEAVES leaves."""
    if (
        type(model).__name__ != "HistGradientBoostingClassifier"
        or model.is_categorical_ is not None
    ):
        return None
    conditions: list[Condition] = []
    leaves: list[list[float]] = []
    for tree, predictors in enumerate(model._predictors):
        [predictor] = predictors
        values: list[float] = []
        _walk(predictor.nodes, 0, tree, values, conditions)
        if len(values) > LEAVES:
            return None
        leaves.append(values)
    widest = max(map(len, leaves))
    padded = np.array([values + [0.0] * (widest - len(values)) for values in leaves])
    kind = next(bits for bits in (8, 16, 32, 64) if widest <= bits)
    full = np.array([(1 << len(values)) - 1 for values in leaves], dtype=f"uint{kind}")
    return Trees(float(model._baseline_prediction.item()), tuple(conditions), padded, full)


def _walk(
    nodes: Any, node: int, tree: int, leaves: list[float], conditions: list[Condition]
) -> int:
    """Appends the values of the leaves and the conditions below a node; returns the mask of these
    leaves.
    """
    if nodes["is_leaf"][node]:
        leaves.append(float(nodes["value"][node]))
        return 1 << (len(leaves) - 1)
    left = _walk(nodes, int(nodes["left"][node]), tree, leaves, conditions)
    right = _walk(nodes, int(nodes["right"][node]), tree, leaves, conditions)
    conditions.append(
        Condition(
            tree,
            int(nodes["feature_idx"][node]),
            float(nodes["num_threshold"][node]),
            left,
            right,
            bool(nodes["missing_go_to_left"][node]),
        )
    )
    return left | right
