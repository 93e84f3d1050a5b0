"""Builds two common scores as models: NEWS2 and qSOFA.

python -m modelapi.rule_models [FOLDER]
"""

import sys
from pathlib import Path
from typing import Any

import msgspec

from modelapi.artifact import write_artifact
from modelapi.features import Feature
from modelapi.rules import Part, ScorecardFile

UNITS = {
    "respiration_rate__last": "1/min",
    "spo2__last": "%",
    "fio2__last": "fraction",
    "blood_pressure__last": "mmHg",
    "heart_rate__last": "1/min",
    "gcs__last": "points",
    "temperature__last": "°C",
}

NEWS2 = ScorecardFile(
    source="Royal College of Physicians. National Early Warning Score (NEWS) 2. London: RCP, 2017",
    maximum=20,
    parts=(
        Part("respiration_rate__last", (8, 11, 20, 24), (3, 1, 0, 2, 3)),
        Part("spo2__last", (91, 93, 95), (3, 2, 1, 0)),
        Part("fio2__last", (0.21,), (0, 2), decimals=2),
        Part("blood_pressure__last", (90, 100, 110, 219), (3, 2, 1, 0, 3)),
        Part("heart_rate__last", (40, 50, 90, 110, 130), (3, 1, 0, 1, 2, 3)),
        Part("gcs__last", (14,), (3, 0)),
        Part("temperature__last", (35.0, 36.0, 38.0, 39.0), (3, 1, 0, 1, 2), decimals=1),
    ),
)
QSOFA = ScorecardFile(
    source="Singer M et al. JAMA 2016;315:801-810 (Sepsis-3)",
    maximum=3,
    parts=(
        Part("respiration_rate__last", (21,), (0, 1)),
        Part("blood_pressure__last", (100,), (1, 0)),
        Part("gcs__last", (14,), (1, 0)),
    ),
)

# Rows scored by hand with the printed chart: values in the order of the parts, score, names of the
# missing features.
NEWS2_GOLDEN: tuple[tuple[tuple[float | None, ...], int, str], ...] = (
    ((16, 97, 0.21, 120, 72, 15, 36.8), 0, ""),
    ((25, 91, 0.4, 90, 131, 14, 35.0), 20, ""),
    ((22, 94, 0.21, 105, 95, 15, 38.4), 6, ""),
    ((8, 93, 0.28, 220, 40, 15, 39.1), 15, ""),
    ((11, None, None, 101, 50, None, 36.04), 4, "spo2__last,fio2__last,gcs__last"),
    ((None,) * 7, 0, ",".join(part.feature for part in NEWS2.parts)),
)
QSOFA_GOLDEN: tuple[tuple[tuple[float | None, ...], int, str], ...] = (
    ((16, 120, 15), 0, ""),
    ((22, 100, 14), 3, ""),
    ((21.4, 101, None), 0, "gcs__last"),
    ((None, 99.5, 3), 2, "respiration_rate__last"),
)

LIMIT = "probability is score / maximum, a position on the scale and not a probability of an event."
MANIFESTS: tuple[tuple[dict[str, Any], ScorecardFile, Any], ...] = (
    (
        {
            "model": "news2",
            "version": "2017",
            "title": "NEWS2, National Early Warning Score of the Royal College of Physicians",
            "created": "2017-12-19T00:00:00Z",
            "thresholds": {"urgent": 5 / 20, "emergency": 7 / 20},
            # The alarm is raised at the score of an emergency and cleared below the urgent score.
            "alarm": {"at": 7 / 20, "clear": 5 / 20, "silence_hours": 6.0},
            "limits": [LIMIT, "Missing observations count 0 points.", "Made for wards, not ICUs."],
        },
        NEWS2,
        NEWS2_GOLDEN,
    ),
    (
        {
            "model": "qsofa",
            "version": "2016",
            "title": "qSOFA, quick Sequential Organ Failure Assessment",
            "created": "2016-02-23T00:00:00Z",
            "thresholds": {"positive": 2 / 3},
            "alarm": {"at": 2 / 3, "silence_hours": 6.0},
            "limits": [LIMIT, "Missing observations count 0 points.", "Not for ruling sepsis out."],
        },
        QSOFA,
        QSOFA_GOLDEN,
    ),
)


def build(root: Path) -> list[Path]:
    """Writes the artifacts under `root`; returns their folders."""
    return [_build(root, *each) for each in MANIFESTS]


def _build(root: Path, manifest: dict[str, Any], score: ScorecardFile, golden: Any) -> Path:
    names = [part.feature for part in score.parts]
    rows = [
        {
            "features": dict(zip(names, values, strict=True)),
            "outputs": {"probability": points / score.maximum, "score": points, "missing": absent},
        }
        for values, points, absent in golden
    ]
    features = [Feature.from_declaration({"name": name, "unit": UNITS[name]}) for name in names]
    outputs = [
        {"name": "probability", "description": f"score / {score.maximum}"},
        {"name": "score", "datatype": "INT64", "description": f"points, 0 to {score.maximum}"},
        {
            "name": "missing",
            "datatype": "BYTES",
            "description": "features without a value, comma-separated",
        },
    ]
    files = {
        "scorecard.json": _json(score),
        "golden.json": _json(rows),
        "MODEL_CARD.md": (Path(__file__).parent / "cards" / f"{manifest['model']}.md").read_bytes(),
    }
    whole = {**manifest, "kind": "scorecard", "features": features, "outputs": outputs}
    return write_artifact(root, whole, files)


def _json(document: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


if __name__ == "__main__":
    for folder in build(Path(sys.argv[1] if len(sys.argv) > 1 else "models")):
        print(folder)
