"""Compares confidence intervals of figures with those of scikit-learn. The program computes them
from cells, which are groups of rows with similar log odds; scikit-learn uses all rows.
"""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from training.evaluation import Scores, evaluate

SEED, RESAMPLES = 4, 30
SKLEARN = {
    "auroc": roc_auc_score,
    "auprc": average_precision_score,
    "brier": brier_score_loss,
}


def scores(values: np.ndarray) -> Scores:
    """One row per value, with random outcomes, 50 patients and unequal weights."""
    draw = np.random.default_rng(1)
    y = (draw.random(len(values)) < 0.3).astype(np.int64)
    return Scores(y, values, draw.integers(50, size=len(values)), draw.uniform(0.1, 1, len(values)))


def by_rows(given: Scores, metric: str) -> list[float]:
    """The 95% interval of scikit-learn's metric over bootstraps of whole patients."""
    names, patient = np.unique(given.patients, return_inverse=True)
    draw = np.random.default_rng(SEED)
    found = []
    for _ in range(RESAMPLES):
        times = np.bincount(draw.integers(len(names), size=len(names)), minlength=len(names))
        weight = given.weights * times[patient]
        found.append(SKLEARN[metric](given.y, given.probability, sample_weight=weight))
    return np.percentile(found, [2.5, 97.5]).tolist()


@pytest.mark.parametrize("metric", list(SKLEARN))
def test_intervals_equal_those_of_all_rows(metric: str) -> None:
    # The log odds are multiples of 0.01, so that different probabilities never share a cell.
    odds = np.random.default_rng(2).integers(-300, 200, 600) / 100
    given = scores(expit(odds))
    figure = evaluate(given, RESAMPLES, SEED, (metric,))[metric]
    assert [figure.low, figure.high] == pytest.approx(by_rows(given, metric), abs=1e-12)


def test_intervals_of_any_probabilities_are_close_to_those_of_all_rows() -> None:
    given = scores(np.random.default_rng(3).beta(1, 5, 600))
    figure = evaluate(given, RESAMPLES, SEED, ("auroc",))["auroc"]
    assert [figure.low, figure.high] == pytest.approx(by_rows(given, "auroc"), abs=1e-3)


def test_intervals_of_scores_that_are_not_probabilities_equal_those_of_all_rows() -> None:
    given = scores(np.random.default_rng(5).integers(0, 40, 600).astype(float))
    figure = evaluate(given, RESAMPLES, SEED, ("auroc",))["auroc"]
    assert [figure.low, figure.high] == pytest.approx(by_rows(given, "auroc"), abs=1e-12)
