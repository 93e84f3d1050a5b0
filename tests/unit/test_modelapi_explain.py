"""Tests that explanations are exact for linear models and Shapley values for other models, and that
they add up.
"""

import math
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from modelapi.features import Feature
from modelapi.linear import fuse
from modelapi.server import create_app
from modelapi.settings import Settings
from modelapi.sklearn_model import Estimator
from tests.support.modelapi_server import MODELS, ROW

REFERENCE = np.array([60.0, 85.0])
FEATURES = (
    Feature("age", reference=60.0),
    Feature("heart_rate__last", "heart_rate", "last", reference=85.0),
)


@pytest.fixture(scope="module")
def data() -> tuple[Any, Any]:
    draw = np.random.default_rng(3)
    x = draw.normal([60, 85], 15, (500, 2))
    y = (x[:, 0] * x[:, 1] + 1000 * draw.normal(size=500) > 5500).astype(int)
    x[draw.random(x.shape) < 0.1] = np.nan
    return x, y


def test_a_linear_explanation_is_exact(data: Any) -> None:
    x, y = data
    pipeline = make_pipeline(SimpleImputer(add_indicator=True), LogisticRegression()).fit(x, y)
    model = fuse(pipeline, FEATURES)
    assert model is not None
    explanation = model.explain(x)
    base = pipeline.decision_function(REFERENCE[np.newaxis])
    np.testing.assert_allclose(explanation.base, np.full(500, base), atol=1e-12)
    for column in range(2):
        one = np.tile(REFERENCE, (500, 1))
        one[:, column] = x[:, column]
        alone = pipeline.decision_function(one) - base
        np.testing.assert_allclose(explanation.contributions[:, column], alone, atol=1e-12)


def test_the_explanation_of_another_model_has_its_shapley_values(data: Any) -> None:
    """Two features have only two orders, and the sample contains both, so the explanation is
    exact.
    """
    x, y = data
    trees = HistGradientBoostingClassifier(max_iter=30).fit(x, y)
    rows = x[:20]
    explanation = Estimator(trees, REFERENCE).explain(rows)
    expected = np.zeros_like(rows)
    for order in permutations(range(2)):
        now = np.tile(REFERENCE, (20, 1))
        for column in order:
            before = trees.decision_function(now)
            now[:, column] = rows[:, column]
            expected[:, column] += (trees.decision_function(now) - before) / 2
    np.testing.assert_allclose(explanation.contributions, expected, atol=1e-9)
    total = explanation.base + explanation.contributions.sum(axis=1)
    np.testing.assert_allclose(total, trees.decision_function(rows), atol=1e-9)


def test_a_feature_at_its_reference_contributes_nothing(data: Any) -> None:
    x, y = data
    trees = HistGradientBoostingClassifier(max_iter=30).fit(x, y)
    explanation = Estimator(trees, REFERENCE).explain(np.array([[60.0, 140.0]]))
    assert explanation.contributions[0, 0] == 0 != explanation.contributions[0, 1]


def ask(tmp_path: Path, name: str, row: dict[str, Any], rows: int = 1) -> Any:
    flask = create_app(Settings(MODELS, tmp_path / "s.sqlite")).test_client()
    inputs = [
        {"name": name, "shape": [rows], "datatype": "FP64", "data": [value] * rows}
        for name, value in row.items()
    ]
    return flask.post(f"/v2/models/{name}/explain", json={"inputs": inputs})


def test_the_answer_names_method_scale_and_features(tmp_path: Path) -> None:
    answer = ask(tmp_path, "formula", ROW).json
    assert "exact" in answer["parameters"]["method"]
    assert answer["parameters"]["scale"] == "log odds"
    outputs = {output["name"]: output for output in answer["outputs"]}
    assert outputs["features"]["data"] == list(ROW)
    assert outputs["contributions"]["shape"] == [1, 4]
    weights = (0.002, 0.001, 0.03, 0.02)
    terms = [weight * value for weight, value in zip(weights, ROW.values(), strict=True)]
    assert outputs["contributions"]["data"] == pytest.approx(terms)
    assert outputs["base"]["data"] == [-5.0]
    [probability] = outputs["probability"]["data"]
    assert math.log(probability / (1 - probability)) == pytest.approx(-5 + sum(terms))


def test_too_many_rows_are_rejected(tmp_path: Path) -> None:
    answer = ask(tmp_path, "formula", ROW, rows=101)
    assert (answer.status_code, answer.content_type) == (413, "application/problem+json")
