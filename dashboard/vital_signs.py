"""What a ward knows about a parameter: its name, unit, limits, and how long a value holds."""

from dataclasses import dataclass


@dataclass(frozen=True)
class VitalSign:
    """One parameter of the stream, as people see it.

    `low` and `high`: the values at which NEWS2 (Royal College of Physicians 2017) gives its
    highest score for this sign; from there on a value is marked. `scale`: the ends of the
    sparkline's axis; None: the values' own. A value is stale after `holds` hours.
    """

    parameter: str
    label: str
    unit: str
    digits: int | None = None
    low: float | None = None
    high: float | None = None
    scale: tuple[float, float] | None = None
    holds: float = 6.0

    def mark(self, value: float) -> str:
        """`low`, `high`, or nothing."""
        if self.low is not None and value <= self.low:
            return "low"
        if self.high is not None and value >= self.high:
            return "high"
        return ""


_KNOWN = {
    sign.parameter: sign
    for sign in (
        VitalSign("blood_pressure", "Blood pressure", "mmHg", 0, 90, 220, (60, 190), 2),
        VitalSign("heart_rate", "Heart rate", "/min", 0, 40, 131, (40, 140), 2),
        VitalSign("respiration_rate", "Respiration", "/min", 0, 8, 25, (6, 34), 2),
        VitalSign("spo2", "SpO₂", "%", 0, 91, None, (84, 100), 2),
        # Charted every 1 to 4 hours, so a value holds longer. NEWS2 gives fever 2 points at most.
        VitalSign("temperature", "Temperature", "°C", 1, 35.0, 39.1, (34.5, 40.5), 6),
    )
}

# As many as a row has room for; the patient's page shows all.
COLUMNS = 5
# A prediction holds as long as the readings that come hourly.
PREDICTION_HOLDS = 2.0


def vital_sign(parameter: str) -> VitalSign:
    """The sign behind a parameter's name; a plain one for a name that is not known."""
    known = _KNOWN.get(parameter)
    return known or VitalSign(parameter, parameter.replace("_", " ").capitalize(), "")


def columns(parameters: set[str]) -> list[VitalSign]:
    """The ward's columns: the signs every ward watches, then others by name."""
    known = [sign for name, sign in _KNOWN.items() if name in parameters]
    others = [vital_sign(name) for name in sorted(parameters - _KNOWN.keys())]
    return (known + others)[:COLUMNS]


def in_order(parameters: set[str]) -> list[VitalSign]:
    """All of them, in the same order as the columns."""
    known = [sign for name, sign in _KNOWN.items() if name in parameters]
    return known + [vital_sign(name) for name in sorted(parameters - _KNOWN.keys())]
