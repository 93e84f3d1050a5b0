"""Feature declarations: which values of a stay a model reads.

The name of a feature has one of these forms:

    age                                  of the patient, in years
    hour                                 of the stay, from its first reading
    <parameter>__<aggregation>           since the stay began
    <parameter>__<aggregation>__<N>h     in the last N hours

Names are parsed from the right, because a parameter may contain `__`. docs/architecture.md defines
the aggregations.
"""

import math
import re
from collections.abc import Mapping
from typing import Any, Self

import msgspec

# Features of the stay, without a parameter.
STAY_FEATURES = ("age", "hour")
AGGREGATIONS = ("last", "first", "min", "max", "mean", "std", "count", "trend", "delta", "age")

# Names that the first version of the project gave to features.
ALIASES = {
    "last_blood_pressure": "blood_pressure__last",
    "rmean_respiration_rate": "respiration_rate__mean",
    "standard_deviation_temperature": "temperature__std",
}

_NAME = re.compile(
    rf"(?P<parameter>.+)__(?P<aggregation>{'|'.join(AGGREGATIONS)})"
    r"(?:__(?P<hours>[1-9][0-9]{0,4})h)?"
)


def read_name(name: str) -> tuple[str | None, str | None, int | None]:
    """Splits a feature's name into parameter, aggregation and window in hours.

    >>> read_name("heart_rate__max__6h")
    ('heart_rate', 'max', 6)
    >>> read_name("age")
    (None, None, None)

    Raises ValueError for a name outside the grammar.
    """
    if name in STAY_FEATURES:
        return None, None, None
    match = _NAME.fullmatch(ALIASES.get(name, name))
    if match is None:
        raise ValueError(
            f"feature {name!r}: expected age, hour, PARAMETER__AGGREGATION or "
            f"PARAMETER__AGGREGATION__<N>h with one of {', '.join(AGGREGATIONS)}"
        )
    hours = match["hours"]
    return match["parameter"], match["aggregation"], int(hours) if hours else None


class Feature(msgspec.Struct, frozen=True, omit_defaults=False):
    """One declared feature. `age` and `hour` have no parameter and no aggregation.

    fill: the number that replaces a missing value. required: if the value is missing and there is
    no fill, the model makes no prediction.
    """

    name: str
    parameter: str | None = None
    aggregation: str | None = None
    window_hours: int | None = None
    fill: float | None = None
    required: bool = False

    def __post_init__(self) -> None:
        declared = (self.parameter, self.aggregation, self.window_hours)
        expected = read_name(self.name)
        if declared != expected:
            raise ValueError(
                f"feature {self.name!r}: parameter, aggregation and window_hours are {declared}, "
                f"its name says {expected}"
            )
        if self.fill is not None and not math.isfinite(self.fill):
            raise ValueError(f"feature {self.name!r}: fill is {self.fill}, not a finite number")

    @classmethod
    def parse(cls, name: str, *, fill: float | None = None, required: bool = False) -> Self:
        """The feature with this name. Raises ValueError if the name or `fill` is invalid.

        >>> Feature.parse("heart_rate__max__6h").window_hours
        6
        """
        parameter, aggregation, hours = read_name(name)
        return cls(name, parameter, aggregation, hours, fill, required)

    @classmethod
    def from_declaration(cls, declaration: Mapping[str, Any]) -> Self:
        """Reads a feature from a JSON object, which may omit the members that the name implies.

        Raises ValueError if the declaration is invalid.

        >>> Feature.from_declaration({"name": "spo2__count__24h", "required": True}).parameter
        'spo2'
        """
        name = declaration.get("name")
        if not isinstance(name, str):
            raise ValueError(f"feature {name!r}: name is not a string")
        keys = ("parameter", "aggregation", "window_hours")
        implied = dict(zip(keys, read_name(name), strict=True))
        try:
            return msgspec.convert({**implied, **declaration}, cls)
        except msgspec.ValidationError as error:
            raise ValueError(f"feature {name!r}: {error}") from None

    def declaration(self) -> dict[str, str | int | float | bool | None]:
        """The feature as a JSON object with all six members."""
        return {key: getattr(self, key) for key in Feature.__struct_fields__}
