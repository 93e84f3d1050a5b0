"""The description of a model, and the format of its predictions."""

from dataclasses import dataclass, field
from typing import Any, Self

from dashboard import formats
from dashboard.rows import ModelKey
from wire.features import read_name

STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)


@dataclass(frozen=True)
class Outcome:
    """The outcome that a model predicts. hours: the last prediction in this time after a stay's
    first reading is compared with the outcome.
    """

    name: str
    hours: float


@dataclass(frozen=True)
class ModelInfo:
    """A model's description. event: the predicted event, in words. maximum: for a score, the
    highest number of points; the score's output is points / maximum and not a probability. usual:
    the base rate of the training rows or, if that is unknown, of the test rows. top: the end of the
    risk axis, which is fixed for each model. learned_hours: the hours of a stay, from its first
    reading on, that the model has learned from; a later prediction is extrapolated. parameters: the
    parameters that the model reads, without those of features whose name is not in the grammar.
    """

    key: ModelKey
    title: str = ""
    event: str = ""
    maximum: int | None = None
    usual: float | None = None
    limits: tuple[str, ...] = ()
    thresholds: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    references: dict[str, float] = field(default_factory=dict)
    outcome: Outcome | None = None
    learned_hours: float | None = None
    parameters: frozenset[str] = frozenset()

    @classmethod
    def from_metadata(cls, key: ModelKey, answer: dict[str, Any]) -> Self:
        """Parses the model API's metadata of a model. Raises KeyError, TypeError, ValueError or
        AttributeError for an invalid document."""
        parameters = answer["parameters"]
        maximum = parameters.get("maximum")
        metrics = parameters.get("metrics") or {}
        outcome = parameters.get("outcome")
        usual = parameters.get("base_rate")
        if usual is None:
            tested = (m["prevalence"]["value"] for m in metrics.values() if "prevalence" in m)
            usual = next(tested, None)
        return cls(
            key,
            str(parameters["title"]),
            str(parameters["probability"]) if maximum is None else "",
            maximum,
            usual,
            tuple(map(str, parameters.get("limits") or ())),
            {
                str(name): float(value)
                for name, value in (parameters.get("thresholds") or {}).items()
            },
            metrics,
            {str(name): float(at) for name, at in (parameters.get("references") or {}).items()},
            Outcome(str(outcome["name"]), float(outcome["hours"])) if outcome else None,
            parameters.get("learned_hours"),
            frozenset(filter(None, (_parameter(each["name"]) for each in answer["inputs"]))),
        )

    @property
    def top(self) -> float:
        """The end of the risk axis, as a probability."""
        highest = max(self.thresholds.values(), default=1.0)
        return next((step for step in STEPS if highest <= step), 1.0)

    @property
    def unit(self) -> str:
        return "%" if self.maximum is None else f"of {self.maximum}"

    @property
    def noun(self) -> str:
        return "Risk" if self.maximum is None else "Score"

    def value(self, probability: float) -> str:
        """The prediction without its unit: percent, or points."""
        if self.maximum is None:
            return formats.percent(probability)
        return f"{probability * self.maximum:.0f}"

    def amount(self, probability: float) -> str:
        """The prediction with its unit, on one line."""
        return f"{self.value(probability)}\N{NO-BREAK SPACE}{self.unit}"

    def change(self, change: float | None) -> str:
        """The change of a prediction, in percentage points or points, with an arrow.

        >>> info = ModelInfo(ModelKey("m", "1"))
        >>> info.change(0.012), info.change(-0.1), info.change(0.0001), info.change(None)
        ('▲ 1.2', '▼ 10', '= 0.0', '')
        """
        if change is None:
            return ""
        shown = self.value(abs(change))
        if float(shown) == 0:
            return f"= {shown}"
        return f"{'▲' if change > 0 else '▼'} {shown}"

    @property
    def axis(self) -> str:
        """The end of the risk axis, in words."""
        return self.amount(self.top)

    @property
    def sentence(self) -> str:
        """A sentence that explains the prediction."""
        name = f"{self.key.name} {self.key.version}"
        if self.maximum is not None:
            return f"Score: points of {self.maximum}, by {name}. A score is not a probability."
        event = self.event or "an event that the model does not name"
        event = event[:1].upper() + event[1:]
        usual = "" if self.usual is None else f" Usual level: {self.amount(self.usual)}."
        return f"Risk: {event}, by {name}.{usual}"


def _parameter(feature: str) -> str | None:
    try:
        return read_name(feature)[0]
    except ValueError:
        return None
