"""Calibration of probabilities: intercept, slope, and observed rates by tenths."""

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logit

from training.arrays import Floats, Integers

TINY = 1e-9  # keeps log odds finite
LARGEST_SHIFT = 60.0  # above 41.4, the greatest difference between two results of log_odds()
NEWTON_STEPS = 100
CONVERGED = 1e-10
NOT_ESTIMABLE = (np.nan, np.nan)


def log_odds(p: Floats) -> Floats:
    """Log odds of probabilities; finite even for 0 and 1."""
    result: Floats = logit(np.clip(p, TINY, 1 - TINY))
    return result


def moved(p: Floats, intercept: float, slope: float) -> Floats:
    """The probabilities after a line transforms their log odds."""
    result: Floats = expit(intercept + slope * log_odds(p))
    return result


def shift(y: Integers, p: Floats, w: Floats) -> float:
    """Calibration in the large: the constant that must be added to the log odds so that the mean
    probability equals the observed rate.

    0 is ideal; above 0 the predictions are too low. NaN if only one outcome occurs.
    """
    x, events = log_odds(p), float(w @ y)
    if not 0 < events < w.sum():
        return np.nan

    def excess(constant: float) -> float:
        return float(w @ expit(x + constant)) - events

    # A narrow bracket is tried first: it takes half as many steps, and the shift of most models is
    # small.
    narrow = excess(-1.0) < 0 < excess(1.0)
    bound = 1.0 if narrow else LARGEST_SHIFT
    return float(brentq(excess, -bound, bound, xtol=1e-12))


def line(y: Integers, p: Floats, w: Floats) -> tuple[float, float]:
    """Intercept and slope of a logistic regression of the outcome on the log odds (Cox 1958).

    NOT_ESTIMABLE if there is no finite maximum likelihood (all probabilities are equal, one outcome
    is missing, or a threshold separates the outcomes), or if Newton's method does not converge.
    """
    used = w > 0
    y, x, w = y[used], log_odds(p[used]), w[used]
    event = y == 1
    if not event.any() or event.all() or separated(x[~event], x[event]):
        return NOT_ESTIMABLE
    centre = float(np.average(x, weights=w))
    spread = float(np.sqrt(np.average((x - centre) ** 2, weights=w)))
    design = np.column_stack([np.ones(len(x)), (x - centre) / spread])
    # The start is intercept 0 and slope 1, the solution for calibrated probabilities.
    solution = _most_likely(design, y, w, np.array([centre, spread]))
    if solution is None:
        return NOT_ESTIMABLE
    a, b = solution
    return float(a - b * centre / spread), float(b / spread)


def separated(x0: Floats, x1: Floats) -> bool:
    """Whether a threshold separates the two groups; values of both groups may be equal to the
    threshold."""
    return bool(x0.max() <= x1.min() or x1.max() <= x0.min())


def _most_likely(design: Floats, y: Integers, w: Floats, theta: Floats) -> Floats | None:
    """Logistic regression by Newton's method; a step is halved until the likelihood increases.
    theta: the coefficients to start from. Returns None if the method does not converge.
    """
    likelihood = _log_likelihood(design @ theta, y, w)
    for _ in range(NEWTON_STEPS):
        q = expit(design @ theta)
        gradient = design.T @ (w * (y - q))
        curvature = design.T @ (design * (w * q * (1 - q))[:, np.newaxis])
        try:
            step = np.linalg.solve(curvature, gradient)
        except np.linalg.LinAlgError:
            return None
        if gradient @ step <= CONVERGED * w.sum() * CONVERGED:
            return theta
        size = 1.0
        while True:
            ahead = _log_likelihood(design @ (theta + size * step), y, w)
            if ahead > likelihood:
                break
            size /= 2
            if size < CONVERGED:
                return theta if gradient @ step <= CONVERGED * w.sum() else None
        theta, likelihood = theta + size * step, ahead
    return None


def _log_likelihood(x: Floats, y: Integers, w: Floats) -> float:
    return float(w @ (y * x - np.logaddexp(0, x)))


def bins(y: Integers, p: Floats) -> list[tuple[float, float, float, float]]:
    """For each tenth of the rows by probability: the mean probability, and the observed rate with
    its 95 % interval (Wilson 1927).
    """
    result = []
    for part in np.array_split(np.argsort(p, kind="stable"), 10):
        if not len(part):
            continue
        n, share = len(part), float(y[part].mean())
        z = 1.96
        middle = (share + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
        result.append((float(p[part].mean()), share, middle - half, middle + half))
    return result
