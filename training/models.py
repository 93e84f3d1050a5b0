"""The models: logistic regression, gradient boosting, and their blend.

Made of scikit-learn's own classes only, so that whoever serves them needs nothing from here.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import HistGradientBoostingClassifier, StackingClassifier
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline, make_union
from sklearn.preprocessing import QuantileTransformer, SplineTransformer, StandardScaler

from training.dataset import Rows

FOLDS = 5

Fold = tuple[NDArray[np.int64], NDArray[np.int64]]


def folds(rows: Rows, seed: int, count: int = FOLDS) -> list[Fold]:
    """Splits with every patient's rows on one side, deaths spread evenly."""
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    return list(splitter.split(rows.x, rows.y, rows.patients))


def fit(kind: str, rows: Rows, seed: int) -> Any:
    """Fit one of `logistic`, `boosting`, `blend` to the rows; calibrated by other patients.

    - logistic: linear in the features, missing values told by indicators. Being fitted by
      likelihood it needs no calibration, and is served as one vector.
    - boosting: gradient boosted trees; its log odds mapped by Platt's method.
    - blend: logistic regression over the log odds of a logistic regression on splines and of
      gradient boosting (stacking, Wolpert 1992). Its slope and intercept are the calibration.
    Both latter mappings are fitted to cross-fitted scores, folds by patient.
    """
    if kind == "logistic":
        return linear().fit(rows.x, rows.y)
    parts = folds(rows, seed)
    if kind == "boosting":
        model = CalibratedClassifierCV(
            boosting(rows, seed), method="sigmoid", cv=parts, ensemble=False
        )
    else:
        model = StackingClassifier(
            [("splines", splines(seed)), ("boosting", boosting(rows, seed))],
            final_estimator=LogisticRegression(C=1.0),
            stack_method="decision_function",
            cv=parts,
        )
    return model.fit(rows.x, rows.y)


def linear() -> Pipeline:
    """Plain logistic regression; medians and an indicator stand in for missing values."""
    return make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True),
        StandardScaler(),
        LogisticRegression(C=0.003, max_iter=1000),
    )


def splines(seed: int) -> Pipeline:
    """Logistic regression on smooth curves of each feature's rank, as risk is often U-shaped,
    and on indicators of what is missing.
    """
    curves = make_pipeline(
        QuantileTransformer(n_quantiles=50, subsample=200_000, random_state=seed),
        SimpleImputer(strategy="median"),
        SplineTransformer(n_knots=4, degree=2, include_bias=False),
    )
    return make_pipeline(
        make_union(curves, MissingIndicator(features="all")),
        StandardScaler(),
        LogisticRegression(C=0.001, max_iter=1000, tol=1e-3),
    )


def boosting(rows: Rows, seed: int) -> HistGradientBoostingClassifier:
    """Small trees, each split seeing a fifth of the features; missing values are its own."""
    # A leaf holds at least 30 stays' worth of rows: the rows of a stay resemble each other.
    rows_a_stay = max(1, len(rows.y) // len(np.unique(rows.patients)))
    return HistGradientBoostingClassifier(
        learning_rate=0.04,
        max_iter=120,
        max_leaf_nodes=12,
        min_samples_leaf=30 * rows_a_stay,
        l2_regularization=5.0,
        max_features=0.2,
        early_stopping=False,
        random_state=seed,
    )
