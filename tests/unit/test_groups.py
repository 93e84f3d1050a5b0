"""Tests the groups of rows in the report of a training, and the inputs of the shipped models."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import brier_score_loss, roc_auc_score

from training.evaluation import Judge, Scores
from training.groups import absent, judge_known, judge_removal
from wire.features import Feature

MODELS = Path(__file__).parents[2] / "models"
NAN = float("nan")
FEATURES = [Feature.parse(name) for name in ("age", "lactate__last__24h", "heart_rate__mean__6h")]


def rows(x: np.ndarray, y: np.ndarray) -> Any:
    return SimpleNamespace(x=x, y=y, patients=np.arange(len(y)))


@pytest.fixture
def ward() -> Any:
    """400 rows. In 250 of them the lactate is unknown; it has more events where it is known."""
    draw = np.random.default_rng(4)
    x = np.column_stack(
        [draw.uniform(20, 90, 400), draw.gamma(4, 0.5, 400), draw.normal(85, 15, 400)]
    )
    y = (draw.random(400) < expit(x[:, 1] - 3)).astype(np.int64)
    x[:250, 1] = np.nan
    return rows(x, y)


def predict(x: np.ndarray) -> np.ndarray:
    """The risk by lactate and heart rate; missing values count as 2 and 85."""
    known = np.where(np.isnan(x), [50, 2, 85], x)
    result: np.ndarray = expit(known[:, 1] - 3 + (known[:, 2] - 85) / 40)
    return result


def test_a_row_lacks_a_parameter_if_it_has_no_value_or_a_count_of_0() -> None:
    names = ("lactate__last", "lactate__count", "heart_rate__count")
    counted = rows(np.array([[2.5, 1.0, 0.0], [NAN, 0.0, 3.0], [NAN, 0.0, 0.0]]), np.zeros(3))
    features = [Feature.parse(name) for name in names]
    assert absent(counted, features, "lactate").tolist() == [False, True, True]
    assert absent(counted, features, "heart_rate").tolist() == [True, False, True]


def test_rows_with_and_without_an_input_have_their_own_figures(ward: Any) -> None:
    p = predict(ward.x)
    scores = Scores(ward.y, p, ward.patients)
    lines = {line.name: line for line in judge_known(ward, scores, FEATURES, Judge(20, 0))}
    # Every row has a heart rate, so there is no line for the rows without one.
    assert list(lines) == ["lactate known", "no lactate", "heart_rate known"]
    for name, part in (("lactate known", slice(250, 400)), ("no lactate", slice(250))):
        line, y = lines[name], ward.y[part]
        assert (line.rows, line.events) == (len(y), y.sum())
        assert line.figures["predicted"].value == pytest.approx(p[part].mean())
        assert line.figures["prevalence"].value == pytest.approx(y.mean())
        assert line.figures["brier"].value == pytest.approx(brier_score_loss(y, p[part]))


def test_removed_inputs_are_predicted_as_missing_ones(ward: Any) -> None:
    scores = Scores(ward.y, predict(ward.x), ward.patients)
    lines = judge_removal(predict, ward, scores, FEATURES, Judge(20, 0))
    aurocs = {line.name: line.figures["auroc"].value for line in lines}
    for parameter, column in (("lactate", 1), ("heart_rate", 2)):
        x = ward.x.copy()
        x[:, column] = np.nan
        expected = roc_auc_score(ward.y, predict(x))
        assert aurocs[f"{parameter} removed"] == pytest.approx(expected)
    assert aurocs["as charted"] == pytest.approx(roc_auc_score(ward.y, scores.probability))
    assert aurocs["30% of all channels removed at random"] < aurocs["as charted"]


@pytest.mark.parametrize("model", ["icu-mortality/2", "icu-mortality-labs/1"])
def test_a_shipped_model_does_not_read_how_a_ward_charts(model: str) -> None:
    """In the training data, a respiration rate, an inspired oxygen or a ventilation is charted, or
    not charted, because of the ventilation."""
    manifest = json.loads((MODELS / model / "manifest.json").read_text())
    features = [Feature.parse(each["name"]) for each in manifest["features"]]
    assert {"gcs", "heart_rate"} <= {f.parameter for f in features}
    assert not {f.parameter for f in features} & {"respiration_rate", "fio2", "mechvent", "spo2"}
    assert not {f.aggregation for f in features} & {"count", "age"}
    assert all(f.window_hours for f in features if f.name != "age")
