"""Turns the contributions to a prediction into sentences."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from dashboard import formats
from dashboard.http_services import Explanation
from dashboard.model_info import ModelInfo
from wire.features import read_name
from wire.vitals import vital

# Number of sentences above the table of all features.
REASONS = 5

_AGGREGATIONS = {
    "last": "at the last reading",
    "first": "at the first reading",
    "min": "at its lowest",
    "max": "at its highest",
    "mean": "on average",
    "std": "standard deviation",
    "count": "(number of readings)",
    "trend": "trend",
    "delta": "change",
    "age": "(time since its last reading)",
}


@dataclass(frozen=True)
class Reason:
    """The contribution of one feature, in words. raises: whether it raises the risk."""

    text: str
    raises: bool
    contribution: float


def reasons(
    explanation: Explanation, features: dict[str, float | None], model: ModelInfo
) -> list[Reason]:
    """The features with the largest contributions, as sentences, largest first."""
    ordered = sorted(explanation.contributions.items(), key=lambda item: -abs(item[1]))
    return [
        Reason(sentence(name, features.get(name), share > 0, model), share > 0, share)
        for name, share in ordered[:REASONS]
        if share != 0
    ]


def sentence(name: str, value: float | None, raises: bool, model: ModelInfo) -> str:
    """The contribution of one feature as a sentence.

    >>> from dashboard.rows import ModelKey
    >>> info = ModelInfo(ModelKey("m", "1"), references={"blood_pressure__mean__48h": 118.0})
    >>> sentence("blood_pressure__mean__48h", 82.3, True, info)
    'Blood pressure on average over 48 h is 82 mmHg, below the usual 118: raises the risk'
    >>> sentence("age", 34.0, False, info)
    'Age is 34 years: lowers the risk'
    >>> sentence("hour", 30.0, False, info)
    'Time since the first reading is 30 h: lowers the risk'
    >>> sentence("heart_rate__age", 3.0, True, info)
    'Heart rate (time since its last reading) is 3 h: raises the risk'
    >>> sentence("spo2__last", None, True, info)
    'SpO₂ at the last reading is missing: raises the risk'
    >>> sentence("temperature__last__48h", 35.0, True, info)
    'Temperature at the last reading in 48 h is 35.0 °C: raises the risk'
    >>> info = ModelInfo(ModelKey("m", "1"), references={"gcs__trend__24h": 0.0})
    >>> sentence("gcs__trend__24h", -0.27473, True, info)
    'Glasgow Coma Scale trend over 24 h is −0.27 per h, below the usual 0: raises the risk'
    >>> sentence("blood_pressure__std__6h", 7.8334, False, info)
    'Blood pressure standard deviation over 6 h is 7.8 mmHg: lowers the risk'
    """
    subject, unit, show = _subject(name)
    noun = model.noun.lower()
    effect = f"{'raises' if raises else 'lowers'} the {noun}"
    if value is None:
        return f"{subject} is missing: {effect}"
    shown = show(value)
    usual = _usual(name, value, show, model)
    return f"{subject} is {shown}{' ' + unit if unit else ''}{usual}: {effect}"


def _usual(name: str, value: float, show: Callable[[float], str], model: ModelInfo) -> str:
    reference = model.references.get(name)
    if reference is None:
        return ""
    usual = show(reference)
    if usual == show(value):
        return ", as usual"
    return f", {'above' if value > reference else 'below'} the usual {usual}"


def _change(value: float) -> str:
    return ("+" if value > 0 else "") + formats.rounded(value)


def _subject(name: str) -> tuple[str, str, Callable[[float], str]]:
    """A feature's name in words, its unit, and the format of its values."""
    try:
        parameter, aggregation, window = read_name(name)
    except ValueError:
        return name, "", formats.number
    if parameter is None or aggregation is None:
        age = name == "age"
        subject, unit = ("Age", "years") if age else ("Time since the first reading", "h")
        return subject, unit, partial(formats.number, digits=0)
    known = vital(parameter)
    within = "in" if aggregation in ("last", "first", "age") else "over"
    over = f" {within} {window} h" if window else ""
    subject = f"{known.label} {_AGGREGATIONS.get(aggregation, aggregation)}{over}"
    if aggregation in ("count", "age"):
        return subject, "h" if aggregation == "age" else "", formats.number
    if aggregation == "trend":
        return subject, f"{known.unit} per h".lstrip(), _change
    if aggregation == "delta":
        return subject, known.unit, _change
    if aggregation == "std":
        return subject, known.unit, formats.rounded
    exact = aggregation in ("last", "first", "min", "max", "mean")
    digits = known.digits if exact else None
    return subject, known.unit, partial(formats.number, digits=digits)
