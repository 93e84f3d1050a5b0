"""The models: logistic regression, gradient boosting, and their blend.

They only use scikit-learn's own classes, so that a server needs no code from this module.
"""

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, StackingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import QuantileTransformer, SplineTransformer, StandardScaler

from training import calibration
from training.arrays import Floats, Integers
from training.config import Model, Trees
from training.progress import progress
from training.removal import with_removed
from training.rows import Rows
from wire.features import Feature

FOLDS = 5
BLOCK = 20_000  # rows that are predicted at a time; limits the memory

Fold = tuple[Integers, Integers]


@dataclass(frozen=True)
class Fitted:
    """An estimator and the calibration of its log odds. crossed: only for boosting; for each fitted
    row, the probability by models that did not see the row's patient.
    """

    estimator: Any
    intercept: float = 0.0
    slope: float = 1.0
    crossed: Floats | None = None

    def predict(self, x: Floats) -> Floats:
        """Computes the probability of the event for each row, in blocks."""
        starts = range(0, len(x), BLOCK)
        parts = [self.estimator.predict_proba(x[at : at + BLOCK])[:, 1] for at in starts]
        p = np.concatenate(parts) if parts else np.empty(0)
        return _through(p, self.intercept, self.slope)


def folds(rows: Rows, seed: int, count: int = FOLDS) -> list[Fold]:
    """Splits the rows by patient into parts with about the same share of events."""
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    return list(splitter.split(rows.x, rows.y, rows.patients))


def fit(model: Model, rows: Rows, features: list[Feature]) -> Fitted:
    """Fits a model of the kind `logistic`, `boosting` or `blend` to the rows, and calibrates it.

    - logistic: linear in the features, with indicators of missing values. It is fitted by
      likelihood, so it needs no calibration.
    - boosting: gradient boosted trees. A line that was fitted to cross-fitted scores, with folds by
      patient, transforms their log odds (Platt 1999); no line if it is not estimable.
    - blend: logistic regression on the log odds of a logistic regression on splines and of
      gradient boosting (stacking, Wolpert 1992). Its slope and intercept are the calibration.

    model.trees must be a single choice, see `tune`.
    """
    if model.kind == "logistic":
        return Fitted(linear().fit(rows.x, rows.y))
    if model.kind == "blend":
        wider = with_removed(rows, features, model.removal, model.seed)
        blend = StackingClassifier(
            [("splines", splines(model.seed)), ("boosting", boosting(wider, model))],
            final_estimator=LogisticRegression(C=1.0),
            stack_method="decision_function",
            cv=folds(wider, model.seed),
        )
        return Fitted(blend.fit(wider.x, wider.y))
    raw = cross_fitted(model, rows, features, model.seed, FOLDS)
    weight = rows.hours_since_last if model.calibrate_by == "hours" else np.ones(len(raw))
    intercept, slope = calibration.line(rows.y, raw, weight)
    if np.isnan(slope):
        intercept, slope = 0.0, 1.0
    crossed = _through(raw, intercept, slope)
    return Fitted(trees(model, rows, features), intercept, slope, crossed)


def _through(p: Floats, intercept: float, slope: float) -> Floats:
    return p if (intercept, slope) == (0.0, 1.0) else calibration.moved(p, intercept, slope)


def trees(model: Model, rows: Rows, features: list[Feature]) -> HistGradientBoostingClassifier:
    """Fits gradient boosting to the rows, and to their copies with channels removed."""
    wider = with_removed(rows, features, model.removal, model.seed)
    return boosting(wider, model).fit(wider.x, wider.y)


def cross_fitted(
    model: Model, rows: Rows, features: list[Feature], seed: int, count: int
) -> Floats:
    """Uncalibrated probabilities of each row, by trees that did not see the row's patient."""
    raw = np.empty(len(rows.y))
    for past, now in progress(folds(rows, seed, count), "cross-fitting"):
        part = Rows(rows.x[past], rows.y[past], rows.about.iloc[past])
        raw[now] = Fitted(trees(model, part, features)).predict(rows.x[now])
    return raw


def tune(
    model: Model, rows: Rows, features: list[Feature]
) -> tuple[Trees, list[tuple[Trees, float]]]:
    """Returns the choice of trees with the least cross-validated log loss, and the loss of each
    choice. If there is only one choice, no loss is computed."""
    choices = model.trees.choices
    if len(choices) == 1:
        return choices[0], []
    losses = []
    for choice in progress(choices, "choosing the trees"):
        raw = cross_fitted(with_trees(model, choice), rows, features, model.seed + 1, FOLDS)
        losses.append((choice, float(log_loss(rows.y, raw))))
    return min(losses, key=lambda tried: tried[1])[0], losses


def with_trees(model: Model, choice: Trees) -> Model:
    """The config's model with a single choice of trees."""
    return msgspec.structs.replace(model, trees=choice)


def linear() -> Pipeline:
    """Plain logistic regression, with medians and an indicator for missing values."""
    return make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True),
        StandardScaler(),
        LogisticRegression(C=0.003, max_iter=1000),
    )


def splines(seed: int) -> Pipeline:
    """Logistic regression on smooth curves of each feature's rank, because risk is often U-shaped.

    A missing value counts as the median, so that missingness itself has no effect.
    """
    return make_pipeline(
        QuantileTransformer(n_quantiles=50, subsample=200_000, random_state=seed),
        SimpleImputer(strategy="median"),
        SplineTransformer(n_knots=4, degree=2, include_bias=False),
        StandardScaler(),
        LogisticRegression(C=0.001, max_iter=1000, tol=1e-3),
    )


def boosting(rows: Rows, model: Model) -> HistGradientBoostingClassifier:
    """Small trees, not fitted yet; only a share of the features is available to each split."""
    # A leaf has at least as many rows as 30 average patients, because the rows of one patient are
    # similar.
    rows_per_stay = max(1, len(rows.y) // len(np.unique(rows.patients)))
    return HistGradientBoostingClassifier(
        learning_rate=model.trees.rate,
        max_iter=model.trees.count,
        max_leaf_nodes=model.trees.leaves,
        min_samples_leaf=30 * rows_per_stay,
        l2_regularization=5.0,
        max_features=model.trees.features,
        early_stopping=False,
        random_state=model.seed,
    )
