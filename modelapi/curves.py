"""The additive part of a compiled model: one curve per feature.

Converts a fitted pipeline of splines over ranks to a sum of functions of one feature each:

    QuantileTransformer -> SimpleImputer -> SplineTransformer
    -> StandardScaler -> LogisticRegression

The first three steps may be in a FeatureUnion with a MissingIndicator. A rank is piecewise linear
in the value and a spline is piecewise polynomial in the rank, so each function is piecewise
polynomial in the value.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline, PPoly

Values = NDArray[np.float64]

_STEPS = [
    *("QuantileTransformer", "SimpleImputer", "SplineTransformer"),
    *("StandardScaler", "LogisticRegression"),
]


@dataclass(frozen=True)
class Curve:
    """A piecewise polynomial: from `edges[i]` to the next edge, the sum over m of
    `powers[i, m]` (value - edges[i])^m.

    The first piece also applies below its edge. missing: the result for a missing value.
    """

    edges: Values
    powers: Values
    missing: float


def zero() -> Curve:
    """A curve that is 0 everywhere."""
    return Curve(np.zeros(1), np.zeros((1, 1)), 0.0)


def from_pipeline(pipeline: Any) -> tuple[float, list[Curve]] | None:
    """The intercept and the curves whose sum is the pipeline's decision function.

    Returns None for a pipeline of another structure or with unsupported settings.
    """
    parts = _parts(pipeline)
    if parts is None:
        return None
    (ranks, imputer, splines, scaler, regression), indicator = parts
    count = pipeline.n_features_in_
    if not _covered(ranks, imputer, splines, indicator, count):
        return None

    weights = regression.coef_[0] / (scaler.scale_ if scaler.with_std else 1.0)
    intercept = float(regression.intercept_[0])
    if scaler.with_mean:
        intercept -= float(weights @ scaler.mean_)
    per_feature = weights[: splines.n_features_out_].reshape(count, -1)
    absent = weights[splines.n_features_out_ :] if indicator is not None else np.zeros(count)
    curves = []
    for i, feature_ranks in enumerate(_ranks(ranks)):
        basis = splines.bsplines_[i]
        # Without a bias, scikit-learn omits the last spline. This equals a weight of 0.
        whole = np.zeros(basis.c.shape[1])
        whole[: per_feature.shape[1]] = per_feature[i]
        spline = PPoly.from_spline(BSpline(basis.t, basis.c @ whole, basis.k))
        missing = float(spline(imputer.statistics_[i])) + float(absent[i])
        curves.append(_compose(spline, feature_ranks, missing))
    return intercept, curves


def _parts(pipeline: Any) -> tuple[list[Any], Any] | None:
    """The five steps, and the MissingIndicator or None; None for another structure."""
    steps = [step for _, step in getattr(pipeline, "steps", [])]
    indicator = None
    if steps and type(steps[0]).__name__ == "FeatureUnion":
        parts = [part for _, part in steps[0].transformer_list]
        if _kinds(parts[1:]) != ["MissingIndicator"] or steps[0].transformer_weights:
            return None
        indicator = parts[1]
        steps[:1] = [step for _, step in getattr(parts[0], "steps", [])]
    return (steps, indicator) if _kinds(steps) == _STEPS else None


def _kinds(steps: list[Any]) -> list[str]:
    return [type(step).__name__ for step in steps]


def _covered(ranks: Any, imputer: Any, splines: Any, indicator: Any, count: int) -> bool:
    """Whether `from_pipeline` supports the settings."""
    if ranks.output_distribution != "uniform" or imputer.add_indicator:
        return False
    if np.isnan(imputer.statistics_).any() or splines.extrapolation != "constant":
        return False
    inside = all(
        # Ranks must be within the knots, because outside them a spline is another polynomial.
        math.isclose(basis.t[basis.k], 0, abs_tol=1e-12)
        and math.isclose(basis.t[-basis.k - 1], 1, abs_tol=1e-12)
        for basis in splines.bsplines_
    )
    return inside and (indicator is None or len(indicator.features_) == count)


@dataclass(frozen=True)
class _Ranks:
    """A feature's distinct quantiles, and for each the ranks at, just below and just above it. The
    three ranks differ where quantiles coincide.
    """

    quantiles: Values
    at: Values
    below: Values
    above: Values


def _ranks(transformer: Any) -> Iterator[_Ranks]:
    ranked = transformer.transform(transformer.quantiles_)
    references = transformer.references_
    for feature in range(ranked.shape[1]):
        quantiles, first, size = np.unique(
            transformer.quantiles_[:, feature], return_index=True, return_counts=True
        )
        yield _Ranks(
            quantiles, ranked[first, feature], references[first], references[first + size - 1]
        )


def _compose(spline: PPoly, ranks: _Ranks, missing: float) -> Curve:
    """The spline as a function of the value: at each edge, its Taylor series in the rank, scaled by
    the rank's slope."""
    pieces = np.array(list(_pieces(spline.x, ranks)))
    # Edges may be so close that a piece is empty; then the next piece applies.
    edges, rank, slope = pieces[np.append(np.diff(pieces[:, 0]) > 0, True)].T
    powers = [spline(rank, nu=m) * slope**m / math.factorial(m) for m in range(spline.c.shape[0])]
    return Curve(edges, np.stack(powers, axis=1), missing)


def _pieces(knots: Values, ranks: _Ranks) -> Iterator[tuple[float, float, float]]:
    """Triples (edge, rank, slope): from the edge to the next one, the rank of a value is rank +
    slope * (value - edge)."""
    quantiles, below, above = (
        each.tolist() for each in (ranks.quantiles, ranks.below, ranks.above)
    )
    yield math.nextafter(quantiles[0], -math.inf), 0.0, 0.0
    for i, quantile in enumerate(quantiles):
        start = quantile
        if not math.isclose(below[i], above[i], abs_tol=1e-12):
            yield quantile, float(ranks.at[i]), 0.0
            start = math.nextafter(quantile, math.inf)
        if i == len(quantiles) - 1:
            yield start, 1.0, 0.0
            return
        slope = (below[i + 1] - above[i]) / (quantiles[i + 1] - quantile)
        yield start, above[i] + slope * (start - quantile), slope
        for knot in knots.tolist():
            if above[i] < knot < below[i + 1]:
                yield quantile + (knot - above[i]) / slope, knot, slope
