"""Feature declarations in a manifest."""

import wire.features


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
            raise ValueError(f"feature {self.name!r}: a required feature has no fill")
