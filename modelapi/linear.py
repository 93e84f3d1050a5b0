"""Fused logistic models: one coefficient per feature, without a pipeline at serving time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from modelapi.features import Feature
from modelapi.predictor import EXPLAINED_ROWS, Explanation, Rows, logistic

# Terms of extreme values are clipped, so that their sum is finite.
_HUGE = 1e300


@dataclass(frozen=True)
class Linear:
    """log odds = intercept + the sum of one term per feature. The term is coefficient · value, or
    the entry in `missing` if the value is missing; if that entry is NaN, the value must not be
    missing. coefficients, missing, reference: shape (features,). Contributions are relative to
    `reference`, where NaN means missing.
    """

    intercept: float
    coefficients: Rows
    missing: Rows
    reference: Rows
    explained_rows: ClassVar[int] = EXPLAINED_ROWS

    def terms(self, rows: Rows) -> Rows:
        """The term of each feature in the log odds, shape (rows, features)."""
        with np.errstate(over="ignore"):
            terms: Rows = rows * self.coefficients
        # In most requests no value is missing or extreme; a comparison with NaN is false.
        if np.abs(terms).max(initial=0.0) <= _HUGE:
            return terms
        return np.where(np.isnan(rows), self.missing, np.clip(terms, -_HUGE, _HUGE))

    def probability(self, rows: Rows) -> Rows:
        # A sum along the row, not a matrix product, so that a row's result is the same to the last
        # bit in every batch.
        return logistic(self.intercept + self.terms(rows).sum(axis=1))

    def outputs(self, rows: Rows) -> dict[str, NDArray[np.generic]]:
        return {"probability": self.probability(rows)}

    def explain(self, rows: Rows) -> Explanation:
        # If a feature has neither a reference nor a term for a missing value, its contribution is
        # relative to 0.
        reference = np.nan_to_num(self.terms(self.reference[np.newaxis, :])[0])
        return Explanation(
            method="exact terms of the linear model against the reference",
            scale="log odds",
            base=np.full(len(rows), self.intercept + reference.sum()),
            contributions=self.terms(rows) - reference,
        )


class Term(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A feature's entry in linear.json.

    missing: its term in the log odds if the value is missing.
    """

    feature: str
    coefficient: float
    missing: float | None = None


class LinearFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of linear.json: a fused logistic model as plain data."""

    intercept: float
    terms: tuple[Term, ...]


def from_json(content: bytes, features: Sequence[Feature]) -> Linear:
    """Reads the model in linear.json. Raises ValueError if it does not fit the features."""
    document = msgspec.json.decode(content, type=LinearFile)
    if [term.feature for term in document.terms] != [feature.name for feature in features]:
        raise ValueError("terms: these must be the manifest's features, in the manifest's order")
    return Linear(
        document.intercept,
        np.array([term.coefficient for term in document.terms]),
        _or_nan([term.missing for term in document.terms]),
        reference(features),
    )


def reference(features: Sequence[Feature]) -> Rows:
    """The features' reference values, NaN where none is declared."""
    return _or_nan([feature.reference for feature in features])


def fuse(pipeline: Any, features: Sequence[Feature]) -> Linear | None:
    """Fuses SimpleImputer, StandardScaler (both optional) and LogisticRegression, in this order,
    into one `Linear`. Returns None for any other pipeline.
    """
    steps = [step for _, step in pipeline.steps if step not in (None, "passthrough")]
    kinds = [type(step).__name__ for step in steps]
    known = ["SimpleImputer", "StandardScaler", "LogisticRegression"]
    if kinds != [kind for kind in known if kind in kinds] or kinds[-1] != known[-1]:
        return None
    *preparation, regression = steps
    if regression.coef_.shape[0] != 1:
        return None

    # Each column of the pipeline's matrix depends on one feature, its source. The column is slope ·
    # value + offset if the value is present, and `absent` otherwise.
    count = len(features)
    source, slope, offset = np.arange(count), np.ones(count), np.zeros(count)
    absent = np.full(count, np.nan)
    for step in preparation:
        if type(step).__name__ == "SimpleImputer":
            statistics = step.statistics_.astype(np.float64)
            kept = ~np.isnan(statistics)
            indicated = step.indicator_.features_ if step.add_indicator else np.array([], dtype=int)
            blank = np.zeros(len(indicated))
            source = np.concatenate([source[kept], indicated])
            slope = np.concatenate([slope[kept], blank])
            offset = np.concatenate([offset[kept], blank])
            absent = np.concatenate([statistics[kept], blank + 1])
        else:
            mean = step.mean_ if step.with_mean else 0.0
            scale = step.scale_ if step.with_std else 1.0
            slope, offset, absent = slope / scale, (offset - mean) / scale, (absent - mean) / scale
    weights = regression.coef_[0]

    def gather(values: Rows) -> Rows:
        sums = np.zeros(count)
        np.add.at(sums, source, weights * values)
        return sums

    return Linear(
        float(regression.intercept_[0] + weights @ offset),
        gather(slope),
        gather(absent - offset),
        reference(features),
    )


def _or_nan(values: Sequence[float | None]) -> Rows:
    return np.array([np.nan if value is None else value for value in values])
