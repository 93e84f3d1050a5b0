"""Feature declarations in a manifest."""

import wire.features
from wire.vitals import vital


class Feature(wire.features.Feature, frozen=True, forbid_unknown_fields=True):
    """One input of a model.

    range: lowest and highest value in the training data. reference: the typical value (the training
    median) that explanations refer to; null means missing.
    """

    unit: str | None = None
    range: tuple[float, float] | None = None
    reference: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fill is not None and self.required:
            raise ValueError(f"feature {self.name!r}: a required feature must not have a fill")


def unit_of(feature: wire.features.Feature) -> str | None:
    """The unit of a feature's value; None if the value has no unit or the unit is unknown."""
    if feature.parameter is None:
        return "years" if feature.name == "age" else "h"
    if feature.aggregation == "age":
        return "h"
    unit = vital(feature.parameter).unit
    if feature.aggregation == "count" or not unit:
        return None
    return f"{unit} per hour" if feature.aggregation == "trend" else unit
