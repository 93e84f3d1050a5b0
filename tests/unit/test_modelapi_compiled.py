"""Compares the compiled form of trained models with scikit-learn and with Shapley's definition."""

import functools
import itertools
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
)
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import QuantileTransformer, SplineTransformer, StandardScaler

from modelapi.artifact import Ref
from modelapi.compiled import Compiled
from modelapi.compiler import compile_estimator
from modelapi.repository import Repository
from tests.support.modelapi_server import MODELS

FEATURES = 5
Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def data() -> tuple[Array, Array]:
    """Continuous, whole, rounded, binary and skewed values; a fifth of the values are missing."""
    draw = np.random.default_rng(7)
    x = np.stack(
        [
            draw.normal(80, 15, 600),
            draw.integers(3, 16, 600).astype(float),
            np.round(draw.normal(37, 0.6, 600), 1),
            draw.integers(0, 2, 600).astype(float),
            draw.lognormal(0, 1, 600),
        ],
        axis=1,
    )
    risk = abs(x[:, 0] - 80) / 15 - (x[:, 1] - 9) / 3 * (x[:, 3] - 0.5)
    y = (risk + draw.normal(size=600) > 1).astype(int)
    x[draw.random(x.shape) < 0.2] = np.nan
    return x, y


def splines(degree: int = 2, indicator: bool = True) -> Any:
    curves = [
        QuantileTransformer(n_quantiles=20),
        SimpleImputer(strategy="median"),
        SplineTransformer(n_knots=4, degree=degree, include_bias=False),
    ]
    if indicator:
        curves = [make_union(make_pipeline(*curves), MissingIndicator(features="all"))]
    return make_pipeline(*curves, StandardScaler(), LogisticRegression())


def boosting(leaves: int = 12) -> Any:
    return HistGradientBoostingClassifier(max_iter=15, max_leaf_nodes=leaves, min_samples_leaf=5)


def blend() -> Any:
    parts = [("splines", splines()), ("boosting", boosting())]
    return StackingClassifier(parts, LogisticRegression(), cv=3, stack_method="decision_function")


ESTIMATORS = {
    "blend": blend,
    "splines": splines,
    "cubic splines": lambda: splines(3),
    "splines without an indicator": lambda: splines(indicator=False),
    "boosting": boosting,
    "8 leaves": lambda: boosting(8),
    "31 leaves": lambda: boosting(31),
    "64 leaves": lambda: boosting(64),
    "calibrated": lambda: CalibratedClassifierCV(boosting(), cv=3, ensemble=False),
}


@pytest.fixture(scope="module")
def fitted(data: tuple[Array, Array]) -> Callable[[str], Any]:
    """Fits each estimator once."""
    return functools.cache(lambda kind: ESTIMATORS[kind]().fit(*data))


def compiled(estimator: Any, reference: Array | None = None) -> Compiled:
    form = compile_estimator(estimator, np.zeros(FEATURES) if reference is None else reference)
    assert form is not None
    return form


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_the_compiled_form_equals_predict_proba(
    data: tuple[Array, Array], fitted: Callable[[str], Any], kind: str
) -> None:
    x, _ = data
    estimator = fitted(kind)
    form = compiled(estimator)
    draw = np.random.default_rng(1)
    # The values are between, at and next to the training values, far outside them, and missing.
    between = draw.uniform(np.nanmin(x, axis=0) - 1, np.nanmax(x, axis=0) + 1, x.shape)
    beside = np.nextafter(x, draw.choice([-np.inf, np.inf], x.shape))
    edges = np.stack([draw.choice(each[:-1], 3000) for each in form.slots.edges], axis=1)
    below = np.nextafter(edges, -np.inf)
    outside = draw.choice([-1e300, 1e300, 0.0, np.nan], x.shape)
    for rows in (x, between, beside, edges, below, outside):
        expected = estimator.predict_proba(rows)[:, 1]
        assert np.abs(form.probability(rows) - expected).max() < 1e-12


def test_a_row_has_the_same_probability_in_every_batch(
    data: tuple[Array, Array], fitted: Callable[[str], Any]
) -> None:
    x, _ = data
    form = compiled(fitted("blend"))
    whole = form.probability(x).tolist()
    assert [form.probability(row[np.newaxis]).item() for row in x[:200]] == whole[:200]
    assert form.probability(x[:0]).shape == (0,)


@pytest.mark.parametrize("kind", ["blend", "splines", "boosting"])
def test_explanations_are_shapley_values(fitted: Callable[[str], Any], kind: str) -> None:
    """Compares with the definition: the mean over all orders of the features. predict_proba
    computes it on the 32 rows that have each feature from the row or from the reference.
    """
    estimator = fitted(kind)
    reference = np.array([80.0, 12.0, np.nan, 1.0, 1.5])
    rows = np.array([[130, 4, 39.5, 0, 0.2], [60, np.nan, 36.1, 1, np.nan], reference])
    explanation = compiled(estimator, reference).explain(rows)
    for row, contributions in zip(rows, explanation.contributions, strict=True):
        subsets = list(itertools.product([False, True], repeat=FEATURES))
        mixed = np.array([np.where(subset, row, reference) for subset in subsets])
        odds = np.log(1 / (1 / estimator.predict_proba(mixed)[:, 1] - 1))
        value = dict(zip(subsets, odds.tolist(), strict=True))
        for feature in range(FEATURES):
            expected = 0.0
            for subset in subsets:
                if subset[feature]:
                    size = sum(subset) - 1
                    weight = math.factorial(size) * math.factorial(FEATURES - size - 1)
                    without = (*subset[:feature], False, *subset[feature + 1 :])
                    expected += weight * (value[subset] - value[without])
            expected /= math.factorial(FEATURES)
            assert contributions[feature] == pytest.approx(expected, abs=1e-9)
        assert explanation.base[0] == pytest.approx(value[(False,) * FEATURES], abs=1e-9)


@pytest.mark.parametrize(
    "estimator",
    [
        RandomForestClassifier(3),
        boosting(65),
        HistGradientBoostingClassifier(max_iter=2, categorical_features=[3]),
        CalibratedClassifierCV(boosting(), cv=3, ensemble=True),
        CalibratedClassifierCV(boosting(), cv=3, ensemble=False, method="isotonic"),
        StackingClassifier([("a", boosting()), ("b", boosting())], LogisticRegression(), cv=2),
    ],
)
def test_other_estimators_are_not_compiled(data: tuple[Array, Array], estimator: Any) -> None:
    x, y = data
    assert compile_estimator(estimator.fit(np.nan_to_num(x), y), np.zeros(FEATURES)) is None


def test_the_shipped_champion_is_compiled() -> None:
    default = json.loads((MODELS / "default.json").read_text())["champion"]
    model = Repository(MODELS).load(Ref(**default))
    assert isinstance(model.predictor, Compiled)
    rows = np.full((2, len(model.names)), np.nan)
    explanation = model.explain(rows)
    total = explanation.base + explanation.contributions.sum(axis=1)
    np.testing.assert_allclose(1 / (1 + np.exp(-total)), model.predict(rows)["probability"])
