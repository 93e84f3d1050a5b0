"""Feature declarations: what a model asks of a stay's readings, as data.

A name is `age` (the patient's age in years), `<parameter>__<aggregation>` (since
the start of the stay) or `<parameter>__<aggregation>__<N>h` (the last N hours),
read from the right, because a parameter may itself contain `__`.
"""

import math
import re

import msgspec

AGGREGATIONS = ("last", "first", "min", "max", "mean", "std", "count", "trend", "delta", "age")

# Names that the first version of the project used.
ALIASES = {
    "last_blood_pressure": "blood_pressure__last",
    "rmean_respiration_rate": "respiration_rate__mean",
    "standard_deviation_temperature": "temperature__std",
}

_NAME = re.compile(
    rf"(?P<parameter>.+)__(?P<aggregation>{'|'.join(AGGREGATIONS)})(?:__(?P<hours>[1-9][0-9]{{0,4}})h)?"
)


def read_name(name: str) -> tuple[str | None, str | None, int | None]:
    """Parameter, aggregation and window in hours that a feature's name stands for.

    >>> read_name("heart_rate__max__6h")
    ('heart_rate', 'max', 6)
    >>> read_name("age")
    (None, None, None)

    Raises ValueError when the name follows no rule of the grammar.
    """
    if name == "age":
        return None, None, None
    match = _NAME.fullmatch(ALIASES.get(name, name))
    if match is None:
        raise ValueError(
            f"feature {name!r}: a name is age, <parameter>__<aggregation> or "
            f"<parameter>__<aggregation>__<N>h with one of {', '.join(AGGREGATIONS)}"
        )
    hours = match["hours"]
    return match["parameter"], match["aggregation"], int(hours) if hours else None


class Feature(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=False):
    """One input of a model.

    fill: number used instead of a missing value. required: no prediction while the
    value is missing. reference: typical value (the training median), against which
    a prediction is explained; null stands for missing. range: lowest and highest
    value seen in training.
    """

    name: str
    parameter: str | None = None
    aggregation: str | None = None
    window_hours: int | None = None
    fill: float | None = None
    required: bool = False
    unit: str | None = None
    range: tuple[float, float] | None = None
    reference: float | None = None

    def __post_init__(self) -> None:
        declared = (self.parameter, self.aggregation, self.window_hours)
        meant = read_name(self.name)
        if declared != meant:
            raise ValueError(
                f"feature {self.name!r}: parameter, aggregation and window_hours are {declared}, "
                f"its name says {meant}"
            )
        if self.fill is not None and (self.required or not math.isfinite(self.fill)):
            raise ValueError(
                f"feature {self.name!r}: fill must be finite, and has no place beside required"
            )

    def declaration(self) -> dict[str, str | int | float | bool | None]:
        """The six members that whoever computes the feature needs."""
        return {
            "name": self.name,
            "parameter": self.parameter,
            "aggregation": self.aggregation,
            "window_hours": self.window_hours,
            "fill": self.fill,
            "required": self.required,
        }
