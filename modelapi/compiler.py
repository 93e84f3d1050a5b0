"""Compiles fitted scikit-learn estimators whose log odds are a sum of curves and trees."""

from dataclasses import replace
from typing import Any

from modelapi import curves, trees
from modelapi.compiled import Compiled, assemble
from modelapi.curves import Curve
from modelapi.predictor import Rows


def compile_estimator(estimator: Any, reference: Rows) -> Compiled | None:
    """Returns the compiled form of one of these estimators:

    - a HistGradientBoostingClassifier,
    - a pipeline of splines (see `curves`),
    - one of these with sigmoid calibration (CalibratedClassifierCV with ensemble=False),
    - a StackingClassifier with LogisticRegression over decision functions of these, at most one
      with trees and one with splines.

    Returns None for all other estimators, and for settings that are not supported.
    """
    summed = _Sum(len(reference))
    if not summed.add(estimator, 1.0):
        return None
    return assemble(summed.intercept, summed.curves, summed.trees, reference)


class _Sum:
    """A weighted sum of parts."""

    def __init__(self, features: int) -> None:
        self.intercept = 0.0
        self.curves = [curves.zero()] * features
        self.trees = trees.none()
        self._parts: set[str] = set()

    def add(self, estimator: Any, weight: float) -> bool:
        """Adds a part's log odds; returns False if it cannot be compiled."""
        kind = type(estimator).__name__
        if kind == "StackingClassifier":
            return self._add_stack(estimator, weight)
        if kind == "CalibratedClassifierCV":
            return self._add_calibrated(estimator, weight)
        kind = "trees" if kind == "HistGradientBoostingClassifier" else "curves"
        if kind in self._parts:  # at most one part of each kind is supported
            return False
        self._parts.add(kind)
        return (
            self._add_trees(estimator, weight)
            if kind == "trees"
            else self._add_curves(estimator, weight)
        )

    def _add_stack(self, estimator: Any, weight: float) -> bool:
        final = estimator.final_estimator_
        if type(final).__name__ != "LogisticRegression" or estimator.passthrough:
            return False
        if set(estimator.stack_method_) != {"decision_function"}:
            return False
        self.intercept += weight * float(final.intercept_[0])
        return all(
            self.add(part, weight * float(slope))
            for part, slope in zip(estimator.estimators_, final.coef_[0], strict=True)
        )

    def _add_calibrated(self, estimator: Any, weight: float) -> bool:
        if estimator.method != "sigmoid" or len(estimator.calibrated_classifiers_) != 1:
            return False
        [calibrated] = estimator.calibrated_classifiers_
        [sigmoid] = calibrated.calibrators
        self.intercept -= weight * float(sigmoid.b_)
        return self.add(calibrated.estimator, -weight * float(sigmoid.a_))

    def _add_trees(self, estimator: Any, weight: float) -> bool:
        found = trees.from_boosting(estimator)
        if found is None:
            return False
        self.trees = replace(
            found, intercept=weight * found.intercept, leaves=weight * found.leaves
        )
        return True

    def _add_curves(self, estimator: Any, weight: float) -> bool:
        found = curves.from_pipeline(estimator)
        if found is None:
            return False
        intercept, each = found
        self.intercept += weight * intercept
        self.curves = [Curve(c.edges, weight * c.powers, weight * c.missing) for c in each]
        return True
