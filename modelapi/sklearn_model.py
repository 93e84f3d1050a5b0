"""Loads scikit-learn estimators from a joblib file."""

import io
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelapi.compiled import Compiled
from modelapi.compiler import compile_estimator
from modelapi.features import Feature
from modelapi.linear import Linear, fuse, reference
from modelapi.predictor import EXPLAINED_ROWS, Explanation, Predictor, Rows, log_odds

log = logging.getLogger("modelapi")

PERMUTATIONS = 8
# Maximum number of rows that the model evaluates for the explanations of one request.
EVALUATIONS = 50_000
EPSILON = 1e-12
TOLERANCE = 1e-9


def libraries() -> dict[str, str]:
    """The library versions that an artifact made here depends on."""
    return {name: version(name) for name in ("scikit-learn", "numpy", "joblib")}


@dataclass(frozen=True)
class Estimator:
    """An estimator that is served by predict_proba; the second class is the event."""

    estimator: Any
    reference: Rows

    @property
    def explained_rows(self) -> int:
        per_row = 2 * PERMUTATIONS * (len(self.reference) + 1)
        return min(EXPLAINED_ROWS, max(1, EVALUATIONS // per_row))

    def probability(self, rows: Rows) -> Rows:
        if not len(rows):
            return np.empty(0)
        result: Rows = self.estimator.predict_proba(rows)[:, 1]
        return result

    def outputs(self, rows: Rows) -> dict[str, NDArray[np.generic]]:
        return {"probability": self.probability(rows)}

    def explain(self, rows: Rows) -> Explanation:
        """Shapley values of the log odds against one baseline row, by permutation sampling.

        Features are switched from the reference to the row's value one by one, in random orders and
        their reverses. A feature's contribution is the mean change when it is switched (Castro et
        al. 2009; antithetic pairs: Mitchell et al. 2022; a single baseline: Sundararajan and Najmi
        2020). In each order, and so on average, the base plus the contributions is exactly the
        row's value.
        """
        count, width = rows.shape
        contributions = np.zeros((count, width))
        base = self._log_odds(self.reference[np.newaxis, :])[0]
        draw = np.random.default_rng(0)
        for _ in range(PERMUTATIONS):
            order = draw.permutation(width)
            for turn in (order, order[::-1]):
                # path[r, s]: row r after the first s switches
                path = np.repeat(rows[:, np.newaxis, :], width + 1, axis=1)
                for step in range(width + 1):
                    path[:, step, turn[step:]] = self.reference[turn[step:]]
                values = self._log_odds(path.reshape(-1, width)).reshape(count, width + 1)
                contributions[:, turn] += np.diff(values, axis=1)
        return Explanation(
            method=f"Shapley values against the reference, {2 * PERMUTATIONS} permutations",
            scale="log odds",
            base=np.full(count, base),
            contributions=contributions / (2 * PERMUTATIONS),
        )

    def _log_odds(self, rows: Rows) -> Rows:
        return log_odds(np.clip(self.probability(rows), EPSILON, 1 - EPSILON))


def from_joblib(
    content: bytes, features: Sequence[Feature], made_with: Mapping[str, str]
) -> Predictor:
    """Loads an estimator from verified bytes. Returns its fused or compiled form if there is one
    that agrees with predict_proba within TOLERANCE, or else the estimator. Raises ValueError if the
    scikit-learn version differs, or if the estimator cannot be loaded, does not fit the features,
    or has other classes than 0 and 1.
    """
    wanted, present = made_with.get("scikit-learn"), version("scikit-learn")
    if wanted != present:
        raise ValueError(f"was made with scikit-learn {wanted}, but {present} is installed")
    import joblib  # imported here, because joblib and scikit-learn take a second and 100 MB

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            estimator = joblib.load(io.BytesIO(content))
        except Exception as error:
            raise ValueError(f"cannot be loaded: {type(error).__name__}: {error}") from None
    if getattr(estimator, "n_features_in_", None) != len(features):
        raise ValueError(
            f"takes {getattr(estimator, 'n_features_in_', 'no')} features, "
            f"but the manifest declares {len(features)}"
        )
    if list(getattr(estimator, "classes_", [])) != [0, 1]:
        raise ValueError("must have the classes 0 and 1")
    served = Estimator(estimator, reference(features))
    form: Linear | Compiled | None = (
        fuse(estimator, features) if hasattr(estimator, "steps") else None
    )
    form = form or compile_estimator(estimator, served.reference)
    if form is None:
        return served
    difference = _difference(form, served, features)
    if difference <= TOLERANCE:
        return form
    log.warning("a model is served by predict_proba: its compiled form differs by %.3g", difference)
    return served


def _difference(form: Linear | Compiled, served: Estimator, features: Sequence[Feature]) -> float:
    """The greatest difference between the two forms on random rows, in which a third of the
    optional values are missing. For a Compiled form, half of the rows consist of the edges at which
    it changes, and of the next lower floats.
    """
    draw = np.random.default_rng(0)
    low, high = np.array([feature.range or (0.0, 200.0) for feature in features]).T
    rows = draw.uniform(low, high, (512, len(features)))
    may_miss = np.ones(len(features), dtype=bool)
    if isinstance(form, Linear):
        may_miss = ~np.isnan(form.missing)
    else:
        for column, edges in zip(rows[256:].T, form.slots.edges, strict=True):
            column[:] = draw.choice(edges[:-1], len(column))
            column[::2] = np.nextafter(column[::2], -np.inf)
    rows[(draw.random(rows.shape) < 1 / 3) & may_miss] = np.nan
    return float(np.abs(form.probability(rows) - served.probability(rows)).max())
