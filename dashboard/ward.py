"""The ward: who is in the ICU, how they are, and how the risk of each has changed."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from dashboard import formats, sparkline
from dashboard.database import (
    BEFORE_ALL,
    WARD_LIMIT,
    Database,
    Reading,
    Stay,
    StayKey,
    Vital,
    hours,
)
from dashboard.topic import Fields
from dashboard.vital_signs import PREDICTION_HOLDS, VitalSign, columns

DAY = timedelta(hours=24)
# The change of the risk is told against the prediction of so many hours before.
CHANGE_HOURS = 6
STEPS = (0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
# A risk curve is drawn in whole numbers: so many to the probability 1.
RISK_UNITS = 100_000


@dataclass(frozen=True)
class Risk:
    """The champion's latest word on a stay, and what it said before, oldest first."""

    probability: float
    at: datetime
    history: list[tuple[datetime, float]]

    @property
    def change(self) -> float | None:
        """Against the newest prediction that is CHANGE_HOURS older or more; None without one."""
        then = earlier(self.at, timedelta(hours=CHANGE_HOURS))
        before = [probability for at, probability in self.history if at <= then]
        return self.probability - before[-1] if before else None


@dataclass(frozen=True)
class Bed:
    """A stay in the ICU with its vitals, and the readings of its last 24 hours by parameter."""

    stay: Stay
    vitals: dict[str, Vital]
    recent: dict[str, list[tuple[datetime, float]]]
    risk: Risk | None
    without: str

    @property
    def since(self) -> datetime | None:
        return min((vital.first_at for vital in self.vitals.values()), default=None)


@dataclass(frozen=True)
class Ward:
    """The ward at one moment of the stream. `full`: there are more beds than it shows."""

    stream: str
    now: datetime
    beds: list[Bed]
    discharged: list[Stay]
    full: bool

    @property
    def signs(self) -> list[VitalSign]:
        return columns({parameter for bed in self.beds for parameter in bed.vitals})


@dataclass
class _Known:
    count: int
    waits: bool
    bed: Bed


class WardReader:
    """Reads the ward; a stay's readings again only when there are new ones."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._of: tuple[str, str | None] | None = None
        self._known: dict[StayKey, _Known] = {}
        self._now: datetime | None = None

    def read(self, stream: str, model: str | None, model_answered: bool) -> Ward | None:
        """The ward by the champion `model`; None while nothing is stored.

        `model_answered`: the model has filled in predictions since the last call, so that
        those which waited are read again.
        """
        if self._of != (stream, model):
            if self._of is None or self._of[0] != stream:
                self._now = None
            self._of = (stream, model)
            self._known = {}
        found = self._database.ward(stream)
        times = [vital.at for _, vitals in found.values() for vital in vitals.values()]
        times += [at for at in (self._now, self._database.newest(stream)) if at is not None]
        if not times:
            return None
        self._now = max(times)
        beds: dict[StayKey, _Known] = {}
        for key in list(found)[:WARD_LIMIT]:
            stay, vitals = found[key]
            count = sum(vital.n for vital in vitals.values())
            known = self._known.get(key)
            if known is None or known.count != count or (known.waits and model_answered):
                known = self._read_bed(stream, model, stay, vitals, count)
            beds[key] = known
        self._known = beds
        ordered = sorted((known.bed for known in beds.values()), key=_by_risk)
        discharged = self._database.discharged(stream)
        return Ward(stream, self._now, ordered, discharged, len(found) > WARD_LIMIT)

    def _read_bed(
        self, stream: str, model: str | None, stay: Stay, vitals: dict[str, Vital], count: int
    ) -> _Known:
        readings: list[Reading] = []
        if vitals:
            latest = max(vital.at for vital in vitals.values())
            readings = self._database.readings(stream, stay.key, model, earlier(latest, DAY))
        recent: dict[str, list[tuple[datetime, float]]] = {}
        for reading in readings:
            recent.setdefault(reading.parameter, []).append((reading.at, reading.value))
        waits = any(reading.predicted and _waits(reading) for reading in readings)
        bed = Bed(stay, vitals, recent, risk_of(readings), why_none(readings, model))
        return _Known(count, waits, bed)


def earlier(at: datetime, by: timedelta) -> datetime:
    """So long before `at`, but not before the calendar begins."""
    return at - by if at - BEFORE_ALL > by else BEFORE_ALL


def risk_of(readings: Iterable[Reading]) -> Risk | None:
    """The latest probability. Of several within an hour the last was made with all of them."""
    by_time: dict[datetime, float] = {}
    for reading in sorted(readings, key=lambda reading: reading.seq):
        if reading.probability is not None:
            by_time[reading.at] = reading.probability
    if not by_time:
        return None
    history = sorted(by_time.items())
    return Risk(history[-1][1], history[-1][0], history)


def why_none(readings: list[Reading], model: str | None) -> str:
    """Why the newest reading has no probability; empty when it has one."""
    if not readings:
        return "no reading yet"
    newest = max(readings, key=lambda reading: reading.seq)
    if newest.probability is not None:
        return ""
    if newest.predicted:
        return newest.reason or "waits for the model"
    return f"none by {model}" if model else "no model"


def _waits(reading: Reading) -> bool:
    return reading.probability is None


def _by_risk(bed: Bed) -> tuple[bool, float, int]:
    risk = -1.0 if bed.risk is None else bed.risk.probability
    return (bed.risk is None, -risk, bed.stay.key.pat_id)


def bed_key(key: StayKey) -> str:
    return f"ward:{key.pat_id}-{key.admitted:%Y%m%d}"


def risk_ceiling(beds: Iterable[Bed]) -> float:
    """The top of the risk curves: one for the whole ward, so that they can be compared.

    A round number at or above every risk of the last 24 hours.
    """
    top = max((p for bed in beds if bed.risk for _, p in bed.risk.history), default=1.0)
    return next(step for step in STEPS if top <= step)


def bed_fields(bed: Bed, now: datetime, signs: list[VitalSign], ceiling: float) -> Fields:
    """A bed as text and curves, ready for the page."""
    admitted = bed.stay.key.admitted
    x_now = hours(admitted, now)
    fields: dict[str, str] = {
        "patient": str(bed.stay.key.pat_id),
        "age": "age unknown" if bed.stay.age is None else f"{bed.stay.age:.0f} y",
        "hour": "" if bed.since is None else f"hour {hours(bed.since, now):.0f}",
        "view": sparkline.window(x_now),
    }
    fields |= _risk_fields(bed, now, x_now, ceiling)
    for index, sign in enumerate(signs):
        for name, value in _vital_fields(bed, sign, now).items():
            fields[f"{index}.{name}"] = value
    return fields


def _risk_fields(bed: Bed, now: datetime, x_now: float, ceiling: float) -> dict[str, str]:
    top = ceiling * RISK_UNITS
    fields = {"risk.view": f"{x_now - 24:g} {-1.04 * top:g} 24.6 {1.08 * top:g}"}
    if bed.risk is None:
        return fields | {
            "risk": "—", "risk.state": "absent", "risk.age": bed.without,
            "risk.change": "", "risk.line": "",
        }  # fmt: skip
    old = hours(bed.risk.at, now)
    stale = old > PREDICTION_HOLDS
    line = [(hours(bed.stay.key.admitted, at), -RISK_UNITS * p) for at, p in bed.risk.history]
    return fields | {
        "risk": formats.percent(bed.risk.probability),
        "risk.state": "stale" if stale else "current",
        "risk.age": f"stale · {formats.age(old)} ago" if stale else f"{formats.age(old)} ago",
        "risk.change": change_text(bed.risk.change),
        "risk.line": sparkline.path(line, PREDICTION_HOLDS),
    }


def change_text(change: float | None) -> str:
    """The change of the risk in percentage points; the arrow says it once more.

    >>> change_text(0.012), change_text(-0.1), change_text(0.0001), change_text(None)
    ('▲ 1.2', '▼ 10', '= 0.0', '')
    """
    if change is None:
        return ""
    shown = formats.percent(abs(change))
    if float(shown) == 0:
        return f"= {shown}"
    return f"{'▲' if change > 0 else '▼'} {shown}"


def _vital_fields(bed: Bed, sign: VitalSign, now: datetime) -> dict[str, str]:
    vital = bed.vitals.get(sign.parameter)
    if vital is None:
        return {"value": "—", "state": "absent", "mark": "", "age": "none yet", "line": ""}
    old = hours(vital.at, now)
    stale = old > sign.holds
    return {
        "value": formats.number(vital.value, sign.digits),
        "state": "stale" if stale else "current",
        "mark": sign.mark(vital.value),
        "age": f"stale · {formats.age(old)} ago" if stale else f"{formats.age(old)} ago",
        "line": _line(bed, sign),
    }


def _line(bed: Bed, sign: VitalSign) -> str:
    points = bed.recent.get(sign.parameter, [])
    if not points:
        return ""
    values = [value for _, value in points]
    low, high = sign.scale or (min(values), max(values))
    admitted = bed.stay.key.admitted
    return sparkline.path(
        ((hours(admitted, at), sparkline.scaled(value, low, high)) for at, value in points),
        sign.holds,
    )


def discharged_fields(stay: Stay) -> Fields:
    """An entry of the list of those who have left."""
    return {
        "patient": str(stay.key.pat_id),
        "age": "age unknown" if stay.age is None else f"{stay.age:.0f} y",
        "left": f"left {formats.day(stay.discharged)}" if stay.discharged else "",
        "href": f"/patients/{stay.key.pat_id}?stay={stay.key.admitted.isoformat()}",
    }
