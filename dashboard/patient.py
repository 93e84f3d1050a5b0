"""One stay: all its curves, what the latest prediction was made from, what was rejected."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dashboard import formats
from dashboard.database import (
    STAY_LIMIT,
    Database,
    Prediction,
    Reading,
    Rejected,
    Stay,
    StayKey,
    Vital,
    hours,
)
from dashboard.sources import Explanation
from dashboard.topic import Content, Fields
from dashboard.vital_signs import PREDICTION_HOLDS, in_order, vital_sign
from dashboard.ward import change_text, risk_of, why_none


@dataclass(frozen=True)
class Patient:
    """A stay as the page shows it. `latest`: the newest prediction that has a probability,
    or else the newest at all."""

    stream: str
    stay: Stay
    stays: list[Stay]
    vitals: dict[str, Vital]
    readings: list[Reading]
    latest: Prediction | None
    rejected: list[Rejected]
    explanation: Explanation | None = None


class PatientReader:
    """Reads one stay, its readings again only when there are new ones."""

    def __init__(self, database: Database, key: StayKey) -> None:
        self._database = database
        self.key = key
        self._of: tuple[str, str | None] | None = None
        self._readings: list[Reading] = []
        self._count = -1

    def read(self, stream: str, model: str | None, model_answered: bool) -> Patient | None:
        """None when the stream has no such stay."""
        stays = self._database.stays_of(stream, self.key.pat_id)
        stay = next((stay for stay in stays if stay.key == self.key), None)
        if stay is None:
            return None
        vitals = self._database.vitals_of(stream, self.key)
        count = sum(vital.n for vital in vitals.values())
        if (self._of, self._count) != ((stream, model), count) or model_answered:
            self._readings = self._database.readings(stream, self.key, model)
            self._of, self._count = (stream, model), count
        rejected = self._database.rejected_of(stream, self.key.pat_id)
        return Patient(
            stream, stay, stays, vitals, self._readings, self._latest(stream, model), rejected
        )

    def _latest(self, stream: str, model: str | None) -> Prediction | None:
        asked = [reading for reading in self._readings if reading.predicted]
        answered = [reading for reading in asked if reading.probability is not None]
        if not asked or model is None:
            return None
        newest = max(answered or asked, key=lambda reading: reading.seq)
        return self._database.prediction(stream, newest.seq, model)


def patient_content(patient: Patient, now: datetime) -> Content:
    """The page's elements; `points` are for its curves and have no place of their own."""
    content: dict[str, Fields] = {
        "patient": _header(patient, now),
        "points": _points(patient.readings),
    }
    for index, sign in enumerate(in_order(set(patient.vitals))):
        vital = patient.vitals[sign.parameter]
        old = hours(vital.at, now)
        gone = patient.stay.discharged is not None
        stale = old > sign.holds and not gone
        content[f"vital:{index}-{sign.parameter}"] = {
            "label": sign.label,
            "unit": sign.unit,
            "value": formats.number(vital.value, sign.digits),
            "state": "stale" if stale else "last" if gone else "current",
            "mark": sign.mark(vital.value),
            "at": formats.moment(vital.at),
            "age": f"stale · {formats.age(old)} ago" if stale else f"{formats.age(old)} ago",
            "n": formats.count(vital.n),
        }
    content |= _features(patient.latest, patient.explanation)
    for message in patient.rejected:
        content[f"rejected:{message.seq}"] = {
            "seq": formats.count(message.seq),
            "reason": message.reason,
            "message": message.message[:500],
        }
    return content


def _header(patient: Patient, now: datetime) -> Fields:
    stay, risk = patient.stay, risk_of(patient.readings)
    gone = stay.discharged is not None
    old = hours(risk.at, now) if risk else 0.0
    stale = risk is not None and old > PREDICTION_HOLDS and not gone
    latest = patient.latest
    return {
        "age": "age unknown" if stay.age is None else f"{stay.age:.0f} years",
        "admitted": formats.day(stay.key.admitted),
        "discharged": formats.day(stay.discharged) if stay.discharged else "in the ICU",
        "hour": _hour(patient, now),
        "risk": formats.percent(risk.probability) if risk else "—",
        "risk.state": "absent" if not risk else "stale" if stale else "last" if gone else "current",
        "risk.age": ""
        if risk is None
        else f"stale · {formats.age(old)} ago"
        if stale
        else formats.moment(risk.at),
        "risk.change": change_text(risk.change) if risk else "",
        "risk.none": why_none(patient.readings, latest.model if latest else None),
        "model": latest.model if latest else "—",
        "version": latest.version if latest else "—",
        "predicted": formats.moment(latest.at) if latest else "—",
        "method": _method(patient.explanation),
        "rejected": formats.count(len(patient.rejected)),
        "cut": f"Only the newest {formats.count(STAY_LIMIT)} readings are drawn."
        if len(patient.readings) >= STAY_LIMIT
        else "",
        "parameters": [_axis(sign.parameter) for sign in in_order(set(patient.vitals))],
    }


def _axis(parameter: str) -> list[Any]:
    sign = vital_sign(parameter)
    return [parameter, sign.label, sign.unit, sign.digits, sign.low, sign.high, sign.holds]


def _hour(patient: Patient, now: datetime) -> str:
    first = min((vital.first_at for vital in patient.vitals.values()), default=None)
    if first is None:
        return "no reading yet"
    if patient.stay.discharged is not None:
        last = max(vital.at for vital in patient.vitals.values())
        return f"{hours(first, last):.0f} h of readings"
    return f"hour {hours(first, now):.0f} of the stay"


def _method(explanation: Explanation | None) -> str:
    if explanation is None:
        return ""
    if explanation.error is not None:
        return f"The model API does not say what each feature contributed: {explanation.error}."
    return f"Contributions in {explanation.scale}: {explanation.method}."


def _points(readings: list[Reading]) -> Fields:
    """Each reading by its place: seconds since 1970 of the stream's clock, parameter, value and,
    if there is one, the probability."""
    return {
        str(reading.seq): [
            int(reading.at.replace(tzinfo=UTC).timestamp()),
            reading.parameter,
            reading.value,
            reading.probability,
        ]
        for reading in readings
    }


def _features(latest: Prediction | None, explanation: Explanation | None) -> Content:
    if latest is None:
        return {}
    told: Mapping[str, float] = explanation.contributions if explanation else {}
    widest = max((abs(value) for value in told.values()), default=0.0) or 1.0
    content: dict[str, Fields] = {}
    if explanation and explanation.base is not None:
        content["feature:base"] = _feature("starting point", "", explanation.base)
    names = sorted(latest.features, key=lambda name: -abs(told.get(name, 0.0)))
    for name in names:
        value = latest.features[name]
        shown = "missing" if value is None else formats.number(value)
        content[f"feature:{name}"] = _feature(name, shown, told.get(name), widest)
    return content


def _feature(name: str, value: str, told: float | None, widest: float = math.inf) -> Fields:
    """The bar goes left of the middle (x 100 of 200) for what lowers the risk, right for more."""
    length = 0 if told is None else round(100 * min(1.0, abs(told) / widest))
    sign = "" if told is None else "+" if told > 0 else ""
    return {
        "name": name,
        "value": value,
        "contribution": "" if told is None else sign + formats.number(told, 3),
        "bar.x": str(100 - length if told is not None and told < 0 else 100),
        "bar.width": str(length),
        "bar.kind": "" if told is None else "raises" if told > 0 else "lowers",
    }
