"""Formats a bed as texts and curves for the page."""

from collections.abc import Mapping
from datetime import datetime

from dashboard import formats, sparkline
from dashboard.alarms import bed_alarm
from dashboard.columns import PREDICTION_HOLDS, in_order, limits
from dashboard.model_info import ModelInfo
from dashboard.rows import Latest, Stay, StayKey, hours
from dashboard.topic import Fields
from dashboard.ward import CHANGE_HOURS, Bed, Ranked, Ward
from wire.vitals import VITALS, Vital

# The coordinate of probability 1 in risk curves, whose coordinates are whole numbers.
RISK_UNITS = 100_000
# Maximum number of missing inputs that a bed names.
WITHOUT_SHOWN = 2


def bed_key(key: StayKey) -> str:
    """The element key of a bed on the ward page."""
    return f"ward:{key.pat_id}-{key.admitted:%Y%m%d}"


def bed_fields(bed: Bed, ward: Ward, model: ModelInfo, signs: list[Vital], query: str) -> Fields:
    """The fields of a bed. query: the query string that selects the stream."""
    now = ward.clock.of(bed.stay.key.pat_id)
    admitted = bed.stay.key.admitted
    x_now = hours(admitted, ward.clock.now)
    fields: dict[str, str] = {
        "patient": bed.stay.name,
        "href": f"/patients/{bed.stay.key.pat_id}{query}",
        "place": bed.stay.place or "",
        "age": age_text(bed.stay),
        "hour": _hour(bed, ward.clock.now),
        "view": sparkline.window(x_now),
    }
    fields |= _risk_fields(bed, now, x_now, model)
    fields["risk.without"] = missing_inputs(
        bed.risk and bed.risk.at, first_times(bed.vitals), model
    )
    fields |= bed_alarm(ward.alarms.on.get(bed.stay.key), now)
    for index, sign in enumerate(signs):
        for name, value in _vital_fields(bed, sign, now).items():
            fields[f"{index}.{name}"] = value
    return fields


def age_text(stay: Stay) -> str:
    """The patient's age in words."""
    return "age unknown" if stay.age is None else f"{stay.age:.0f} years"


def _hour(bed: Bed, now: datetime) -> str:
    first = bed.summary.first_at
    return "" if first is None else f"hour {hours(first, now):.0f}"


def age_of(at: datetime, now: datetime, holds: float) -> tuple[str, str]:
    """State (`current` or `stale`) and age of a value, in words. holds: the number of hours for
    which a value is current."""
    old = hours(at, now)
    if old > holds:
        return "stale", f"stale · {formats.age(old)} ago"
    return "current", f"{formats.age(old)} ago"


def _risk_fields(bed: Bed, now: datetime, x_now: float, model: ModelInfo) -> dict[str, str]:
    top = model.top * RISK_UNITS
    fields = {"risk.view": f"{x_now - 24:g} {-1.04 * top:g} 24.6 {1.08 * top:g}"}
    if bed.risk is None:
        return fields | {
            "risk": "—", "risk.state": "absent", "risk.age": bed.without,
            "risk.change": "", "risk.trend": "", "risk.line": "",
        }  # fmt: skip
    state, age = age_of(bed.risk.at, now, PREDICTION_HOLDS)
    line = [
        (hours(bed.stay.key.admitted, at), -RISK_UNITS * min(probability, model.top))
        for at, probability in bed.history
    ]
    change = bed.change
    return fields | {
        "risk": model.value(bed.risk.probability),
        "risk.state": state,
        "risk.age": age,
        "risk.change": model.change(change),
        "risk.trend": trend(change, model),
        "risk.line": sparkline.path(line, PREDICTION_HOLDS),
    }


def first_times(vitals: Mapping[str, Latest]) -> dict[str, datetime]:
    """The time of the first value of each parameter."""
    return {name: latest.first_at for name, latest in vitals.items()}


def missing_inputs(
    at: datetime | None,
    known: Mapping[str, datetime],
    model: ModelInfo,
    limit: int = WITHOUT_SHOWN,
) -> str:
    """The known vitals that the model reads and that had no value at the time of the risk, in
    words. at: the time of the risk; without a risk, the text is empty. known: the times of the
    first values, by parameter. limit: how many are named.
    """
    if at is None:
        return ""
    used = {name for name, first in known.items() if first <= at}
    missing = in_order(({*model.parameters} & VITALS.keys()) - used)
    labels = [sign.label for sign in missing]
    more = f" and {len(labels) - limit} more" if len(labels) > limit else ""
    return f"without {', '.join(labels[:limit])}{more}" if labels else ""


def trend(change: float | None, model: ModelInfo) -> str:
    """The change of a risk in words, for screen readers; empty if it is unknown."""
    if change is None:
        return ""
    text = model.change(change)
    direction = {"▲": "rising", "▼": "falling"}.get(text[0], "unchanged")
    return (
        direction
        if direction == "unchanged"
        else f"{direction} by {text[2:]} points in {CHANGE_HOURS} hours"
    )


def _vital_fields(bed: Bed, sign: Vital, now: datetime) -> dict[str, str]:
    latest = bed.vitals.get(sign.name)
    if latest is None:
        return {
            "value": "—",
            "state": "absent",
            "mark": "",
            "word": "",
            "age": "none yet",
            "line": "",
        }
    state, age = age_of(latest.at, now, sign.holds_hours)
    mark = sign.mark(latest.value)
    return {
        "value": formats.number(latest.value, sign.digits),
        "state": state,
        "mark": mark,
        "word": mark_text(sign, mark),
        "age": age,
        "line": _line(bed, sign),
    }


def mark_text(sign: Vital, mark: str) -> str:
    """The mark of a value at or beyond a threshold, with the threshold; empty for any other
    value."""
    if mark == "low":
        return f"low ≤{sign.low:g}"
    return f"high ≥{sign.high:g}" if mark == "high" else ""


def _line(bed: Bed, sign: Vital) -> str:
    points = bed.recent.get(sign.name, [])
    if not points:
        return ""
    values = [value for _, value in points]
    low, high = sign.scale or (min(values), max(values))
    admitted = bed.stay.key.admitted
    return sparkline.path(
        ((hours(admitted, at), sparkline.scaled(value, low, high)) for at, value in points),
        sign.holds_hours,
    )


def discharged_fields(stay: Stay, query: str) -> Fields:
    """The fields of an entry in the list of discharges."""
    joined = "&" if query else "?"
    return {
        "patient": stay.name,
        "age": age_text(stay),
        "left": f"discharged {formats.day(stay.discharged)}" if stay.discharged else "",
        "href": f"/patients/{stay.key.pat_id}{query}{joined}stay={stay.key.admitted.isoformat()}",
    }


def listed_fields(
    ranked: Ranked,
    ward: Ward,
    model: ModelInfo,
    query: str,
    known: Mapping[str, datetime] | None,
) -> Fields:
    """The fields of a row in the list of all patients. known: the times of the first values, by
    parameter; None if they could not be read.
    """
    joined = "&" if query else "?"
    now = ward.clock.of(ranked.stay.key.pat_id)
    fields: dict[str, str] = {
        "patient": ranked.stay.name,
        "href": f"/patients/{ranked.stay.key.pat_id}{query}{joined}"
        f"stay={ranked.stay.key.admitted.isoformat()}",
        "place": ranked.stay.place or "",
        "age": age_text(ranked.stay),
        "admitted": formats.day(ranked.stay.key.admitted),
        "risk": "—",
        "risk.state": "absent",
        "risk.age": "",
        "risk.without": "",
        **bed_alarm(ward.alarms.on.get(ranked.stay.key), now),
    }
    if ranked.risk is not None:
        state, age = age_of(ranked.risk.at, now, PREDICTION_HOLDS)
        shown = f"{model.value(ranked.risk.probability)} {model.unit}"
        fields |= {"risk": shown, "risk.state": state, "risk.age": age}
        if known is not None:
            fields["risk.without"] = missing_inputs(ranked.risk.at, known, model)
    return fields


def threshold_notes(signs: list[Vital]) -> str:
    """The thresholds of the columns, in words."""
    return "; ".join(f"{sign.label} {limits(sign)}" for sign in signs if limits(sign))
