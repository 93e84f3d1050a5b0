"""Compares the calibration figures with scikit-learn, including edge cases and cases in which
the fit may diverge.
"""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from training import calibration
from training.evaluation import Scores, evaluate

FIGURES = ("calibration_slope", "calibration_intercept")


def draw_outcomes(shift: float, slope: float, rows: int = 4000, seed: int = 0) -> Scores:
    """Predictions with log odds z, and outcomes with the true log odds `shift + slope * z`."""
    draw = np.random.default_rng(seed)
    z = draw.normal(-3, 1, rows)
    y = (draw.random(rows) < expit(shift + slope * z)).astype(np.int64)
    return Scores(y, expit(z), np.arange(rows))


def by_scikit_learn(scores: Scores, weight: np.ndarray) -> tuple[float, float]:
    x = np.log(scores.probability / (1 - scores.probability))[:, np.newaxis]
    model = LogisticRegression(C=np.inf, tol=1e-10, solver="newton-cholesky", max_iter=1000)
    model.fit(x, scores.y, sample_weight=weight)
    return model.intercept_[0], model.coef_[0, 0]


@pytest.mark.parametrize("shift", [-6, -3, -2.5, 0, 3, 6])
@pytest.mark.parametrize("slope", [0.1, 0.3, 1, 2, 5])
def test_intercept_and_slope_equal_those_of_scikit_learn(shift: float, slope: float) -> None:
    scores = draw_outcomes(shift, slope)
    draw = np.random.default_rng(1)
    weights = [np.ones(4000), np.bincount(draw.integers(4000, size=4000), minlength=4000) * 1.0]
    for weight in weights:
        if min(weight @ scores.y, weight @ (1 - scores.y)) < 10:
            continue  # `evaluate` reports these as not estimable
        found = calibration.line(scores.y, scores.probability, weight)
        assert found == pytest.approx(by_scikit_learn(scores, weight), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("shift", [-2.5, 0, 3, 6])
def test_a_shift_of_the_log_odds_is_found_with_a_finite_interval(shift: float) -> None:
    scores = draw_outcomes(shift, 1)
    figures = evaluate(scores, 50, 0, FIGURES)
    slope, intercept = (figures[name] for name in FIGURES)
    assert slope.value == pytest.approx(1, abs=0.4)
    assert intercept.value == pytest.approx(shift, abs=0.4)
    for figure in (slope, intercept):
        assert figure.low < figure.value < figure.high
        assert figure.high - figure.low < 2


def test_the_shift_makes_the_mean_prediction_correct() -> None:
    scores = draw_outcomes(3, 0.5)
    weight = np.linspace(0.5, 2, 4000)
    shift = calibration.shift(scores.y, scores.probability, weight)
    moved = expit(np.log(scores.probability / (1 - scores.probability)) + shift)
    assert np.average(moved, weights=weight) == pytest.approx(np.average(scores.y, weights=weight))


@pytest.mark.parametrize(
    ("y", "p"),
    [
        ([0, 0, 0, 1, 1, 1], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]),
        ([1, 1, 1, 0, 0, 0], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]),
        ([0, 0, 0, 1, 1, 1], [0.1, 0.2, 0.3, 0.3, 0.5, 0.6]),
        ([0, 1, 0, 1, 0, 1], [0.3] * 6),
        ([0] * 6, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]),
    ],
    ids=["separated", "reversed", "touching", "constant", "no event"],
)
def test_calibration_without_a_finite_slope_is_not_estimable(y: list[int], p: list[float]) -> None:
    found = calibration.line(np.array(y), np.array(p), np.ones(6))
    assert np.isnan(found).all()
    # Rows with the weight 0, as in a bootstrap, change nothing.
    y, p, w = [*y, 1, 0], [*p, 0.01, 0.99], [1.0] * 6 + [0.0, 0.0]
    assert np.isnan(calibration.line(np.array(y), np.array(p), np.array(w))).all()


def test_calibration_of_few_events_is_not_estimable() -> None:
    scores = draw_outcomes(0, 1, rows=400)
    few = np.append(np.flatnonzero(scores.y == 1)[:9], np.flatnonzero(scores.y == 0))
    part = Scores(scores.y[few], scores.probability[few], few)
    figures = evaluate(part, 20, 0)
    assert not figures["calibration_slope"].estimable
    assert not figures["calibration_intercept"].estimable
    assert figures["auroc"].bounded
    assert str(figures["calibration_slope"]) == "not estimable"


def test_calibration_counts_patients_not_rows() -> None:
    scores = draw_outcomes(0, 1, rows=400)
    events = np.flatnonzero(scores.y == 1)[:5]
    chosen = np.concatenate([np.repeat(events, 10), np.flatnonzero(scores.y == 0)])
    part = Scores(scores.y[chosen], scores.probability[chosen], chosen)
    assert not evaluate(part, 20, 0, FIGURES)["calibration_slope"].estimable


def test_with_only_one_outcome_the_brier_score_is_still_estimable() -> None:
    figures = evaluate(Scores(np.zeros(30, int), np.full(30, 0.2), np.arange(30)), 20, 0)
    assert {name for name, figure in figures.items() if figure.estimable} == {
        "prevalence",
        "brier",
        "brier_of_base_rate",
    }
    assert figures["brier"].value == pytest.approx(0.04)


def test_the_bins_contain_all_rows() -> None:
    scores = draw_outcomes(0, 1)
    bins = calibration.bins(scores.y, scores.probability)
    assert np.mean([mean for mean, *_ in bins]) == pytest.approx(scores.probability.mean())
    assert all(low <= share <= high for _, share, low, high in bins)
