"""Builds the default model: the formula of the project's first version.

    python -m modelapi.default_model [FOLDER]

x = -5 + 0.002 age + 0.001 last_bp + 0.03 mean_rr + 0.02 sd_temp, probability = 1 / (1 + e^-x).
It is not fitted to data.
"""

import io
import sys
from pathlib import Path
from typing import Any

import joblib
import msgspec
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from modelapi.artifact import write_artifact
from modelapi.sklearn_model import libraries

INTERCEPT = -5.0
COEFFICIENTS = {
    "age": 0.002,
    "last_blood_pressure": 0.001,
    "rmean_respiration_rate": 0.03,
    "standard_deviation_temperature": 0.02,
}
GOLDEN_ROWS = (
    (63.2, 118.4, 19.5, 0.42),
    (18.0, 60.0, 8.0, 0.0),
    (91.0, 210.0, 45.0, 2.5),
    (54.0, 122.0, 17.25, None),
)

MANIFEST: dict[str, Any] = {
    "model": "formula",
    "version": "1",
    "title": "The formula of the first version, a placeholder",
    "kind": "sklearn",
    "created": "2019-08-01T00:00:00Z",
    "features": [
        {"name": "age", "required": True, "unit": "years"},
        {
            "name": "last_blood_pressure",
            "parameter": "blood_pressure",
            "aggregation": "last",
            "required": True,
            "unit": "mmHg",
        },
        {
            "name": "rmean_respiration_rate",
            "parameter": "respiration_rate",
            "aggregation": "mean",
            "required": True,
            "unit": "1/min",
        },
        {
            "name": "standard_deviation_temperature",
            "parameter": "temperature",
            "aggregation": "std",
            "fill": 0.0,
            "unit": "°C",
        },
    ],
    "outputs": [{"name": "probability", "description": "1 / (1 + e^-x), of no defined event"}],
    "limits": [
        "A placeholder that was never fitted to data.",
        "On 4,000 real stays it ranks deaths no better than chance.",
    ],
}


def pipeline() -> Pipeline:
    """The formula as a fitted scikit-learn pipeline."""
    regression = LogisticRegression()
    regression.classes_ = np.array([0, 1])
    regression.coef_ = np.array([list(COEFFICIENTS.values())])
    regression.intercept_ = np.array([INTERCEPT])
    regression.n_features_in_ = len(COEFFICIENTS)
    regression.n_iter_ = np.array([0], dtype=np.int32)
    return Pipeline([("regression", regression)])


def build(root: Path) -> Path:
    """Writes the artifact under `root`; returns its folder."""
    model = pipeline()
    filled = np.array([[0.0 if value is None else value for value in row] for row in GOLDEN_ROWS])
    golden = [
        {"features": dict(zip(COEFFICIENTS, row, strict=True)), "outputs": {"probability": p}}
        for row, p in zip(GOLDEN_ROWS, model.predict_proba(filled)[:, 1].tolist(), strict=True)
    ]
    content = io.BytesIO()
    joblib.dump(model, content, protocol=4)
    files = {
        "model.joblib": content.getvalue(),
        "golden.json": msgspec.json.format(msgspec.json.encode(golden), indent=2) + b"\n",
        "MODEL_CARD.md": (Path(__file__).parent / "cards" / "formula.md").read_bytes(),
    }
    return write_artifact(root, {**MANIFEST, "libraries": libraries()}, files)


if __name__ == "__main__":
    try:
        print(build(Path(sys.argv[1] if len(sys.argv) > 1 else "models")))
    except FileExistsError as error:
        sys.exit(str(error))
