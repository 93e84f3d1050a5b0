"""The known vitals, from `vitals.toml`."""

import tomllib
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

Limits = tuple[float, float]


class Vital(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One parameter. `vitals.toml` describes the fields; `name` is the name of its table there."""

    label: str
    unit: str = ""
    plausible: Limits | None = None
    digits: Annotated[int, Meta(ge=0, le=6)] | None = None
    scale: Limits | None = None
    low: float | None = None
    high: float | None = None
    threshold: str = ""
    holds_hours: Annotated[float, Meta(gt=0)] = 6.0
    synonyms: tuple[str, ...] = ()
    name: str = ""

    def mark(self, value: float) -> str:
        """Returns `low`, `high` or an empty text."""
        if self.low is not None and value <= self.low:
            return "low"
        if self.high is not None and value >= self.high:
            return "high"
        return ""


def _load(path: Path) -> dict[str, Vital]:
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    vitals = msgspec.convert(tables, dict[str, Vital])
    return {name: msgspec.structs.replace(vital, name=name) for name, vital in vitals.items()}


VITALS = _load(Path(__file__).with_name("vitals.toml"))
_CANONICAL = {
    spelling.lower(): name for name, vital in VITALS.items() for spelling in (name, *vital.synonyms)
}
_PLAUSIBLE = {name: vital.plausible for name, vital in VITALS.items() if vital.plausible}


def vital(name: str) -> Vital:
    """The vital of a parameter; for an unknown parameter, it has only a label and a name.

    >>> vital("blood_pressure").unit, vital("base_excess").label
    ('mmHg', 'Base excess')
    """
    return VITALS.get(name) or Vital(name.replace("_", " ").capitalize(), name=name)


def canonical(name: str) -> str:
    """The pipeline's name of a parameter; an unknown name is returned unchanged.

    >>> canonical("SysABP"), canonical("Base excess")
    ('blood_pressure', 'Base excess')
    """
    return _CANONICAL.get(name.lower(), name)


def implausible(parameter: str, value: float) -> str | None:
    """The reason why a value is implausible; None if it is plausible. A synonym has the limits of
    its vital.

    >>> implausible("temperature", 378.0)
    'temperature 378.0 is not between 26 (excluded) and 45 °C'
    >>> implausible("HR", 80.0)
    """
    name = canonical(parameter)
    limits = _PLAUSIBLE.get(name)
    if limits is None or limits[0] < value <= limits[1]:
        return None
    low, high = limits
    unit = VITALS[name].unit
    return f"{parameter} {value!r} is not between {low:g} (excluded) and {high:g} {unit}"
