"""Formats one stay for its page: curves, values, the latest prediction and its reasons."""

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from dashboard import formats
from dashboard.alarms import patient_alarm
from dashboard.beds import age_of, age_text, first_times, mark_text, missing_inputs, trend
from dashboard.columns import PREDICTION_HOLDS, in_order, limits
from dashboard.database import STAY_LIMIT
from dashboard.model_info import ModelInfo
from dashboard.patient import Patient, Why
from dashboard.rows import Prediction, Stay, earlier, hours
from dashboard.topic import Content, Fields
from dashboard.ward import CHANGE_HOURS, risk_history, why_none
from dashboard.why import reasons
from wire.vitals import Vital

FEATURES_SHOWN = 100
CHANGE_DELTA = timedelta(hours=CHANGE_HOURS)


def patient_content(patient: Patient, model: ModelInfo, whys: Mapping[str, Why]) -> Content:
    """The elements of the page; the element `points` has the data of the curves. whys: the reasons,
    by the names in `Patient.explained`.
    """
    why = whys.get("latest")
    shown = in_order(set(patient.vitals))
    content: dict[str, Fields] = {
        "patient": {
            **_header(patient, model, shown),
            **_why(patient.latest, model, why),
            **patient_alarm(patient, model, whys.get("alarm")),
        },
        "points": _points(patient, {sign.name for sign in shown}),
    }
    for index, sign in enumerate(shown):
        content[f"vital:{index}-{sign.name}"] = _vital(patient, sign)
    content |= _features(patient.latest, why)
    for message in patient.rejected:
        content[f"rejected:{message.seq}"] = {
            "seq": formats.count(message.seq),
            "reason": message.reason,
            "message": message.message[:500],
        }
    return content


def _vital(patient: Patient, sign: Vital) -> Fields:
    latest, now = patient.vitals[sign.name], patient.now
    state, age = age_of(latest.at, now, sign.holds_hours)
    if patient.stay.discharged is not None:
        state, age = "last", f"{formats.age(hours(latest.at, now))} ago"
    mark = sign.mark(latest.value)
    return {
        "label": sign.label,
        "unit": sign.unit,
        "value": formats.number(latest.value, sign.digits),
        "state": state,
        "mark": mark,
        "word": mark_text(sign, mark),
        "limits": limits(sign),
        "at": formats.moment(latest.at),
        "age": age,
        "n": formats.count(latest.n),
    }


def _header(patient: Patient, model: ModelInfo, shown: list[Vital]) -> dict[str, Any]:
    stay, latest = patient.stay, patient.latest
    more = "Not all parameters are shown." if len(patient.vitals) > len(shown) else ""
    cut = ""
    if len(patient.readings) >= STAY_LIMIT:
        cut = f"Only the newest {formats.count(STAY_LIMIT)} readings are drawn."
    return _risk(patient, model) | {
        "age": age_text(stay),
        "place": stay.place or "",
        "admitted": formats.day(stay.key.admitted),
        "discharged": formats.day(stay.discharged) if stay.discharged else "in the ICU",
        "gone": _gone(stay),
        "hour": _hour(patient),
        "risk.learned": _learned(patient, model),
        "risk.none": why_none(patient.readings, latest.model if latest else None),
        "model": model.sentence,
        "rejected": formats.count(len(patient.rejected)),
        "cut": " ".join(filter(None, [cut, more])),
        "risk.axis": [model.noun, model.unit, model.maximum or 100, model.top],
        "parameters": [
            [sign.name, sign.label, sign.unit, sign.digits, sign.low, sign.high, sign.holds_hours,
             sign.threshold]
            for sign in shown
        ],
    }  # fmt: skip


def _gone(stay: Stay) -> str:
    if stay.discharged is None:
        return ""
    return f"Discharged on {formats.day(stay.discharged)}. These are the last values of the stay."


def _risk(patient: Patient, model: ModelInfo) -> dict[str, Any]:
    history = risk_history(patient.readings)
    if not history:
        return {
            "risk": "—", "risk.state": "absent", "risk.age": "", "risk.change": "",
            "risk.trend": "", "risk.without": "",
        }  # fmt: skip
    at, probability = history[-1]
    then = earlier(at, CHANGE_DELTA)
    before = [earlier_one for time, earlier_one in history if time <= then]
    change = probability - before[-1] if before else None
    state, age = age_of(at, patient.now, PREDICTION_HOLDS)
    if state == "current" or patient.stay.discharged is not None:
        state, age = "current", f"at {formats.moment(at)}"
    return {
        "risk": model.value(probability),
        "risk.state": "last" if patient.stay.discharged is not None else state,
        "risk.age": age,
        "risk.change": _change(change, model),
        "risk.trend": trend(change, model),
        "risk.without": missing_inputs(
            at, first_times(patient.vitals), model, len(model.parameters)
        ),
    }


def _change(change: float | None, model: ModelInfo) -> str:
    return "" if change is None else f"{model.change(change)} points in {CHANGE_HOURS} h"


def _learned(patient: Patient, model: ModelInfo) -> str:
    """A note if the risk is from a time in the stay that the model has not learned."""
    first, history = _first(patient), risk_history(patient.readings)
    if model.learned_hours is None or first is None or not history:
        return ""
    if hours(first, history[-1][0]) < model.learned_hours:
        return ""
    return f"The model has only learned from the first {model.learned_hours:g} h of a stay."


def _first(patient: Patient) -> datetime | None:
    """The time of the stay's first reading."""
    return min((latest.first_at for latest in patient.vitals.values()), default=None)


def _hour(patient: Patient) -> str:
    first = _first(patient)
    if first is None:
        return "no reading yet"
    if patient.stay.discharged is not None:
        last = max(latest.at for latest in patient.vitals.values())
        return f"{hours(first, last):.0f} h of readings"
    return f"hour {hours(first, patient.clock.now):.0f} of the stay"


def _why(latest: Prediction | None, model: ModelInfo, why: Why | None) -> dict[str, Any]:
    """The reasons as sentences, or a sentence that says why there are none yet."""
    fields: dict[str, Any] = {"why": [], "why.state": "", "why.at": "", "method": ""}
    if latest is None or latest.probability is None:
        return fields
    if why is None or (why.explanation is None and not why.error):
        return fields | {"why.state": "The reasons are being computed."}
    if why.error:
        fields["why.state"] = f"No newer reasons: {why.error}. The dashboard will retry."
    if why.explanation is None:
        return fields
    found = reasons(why.explanation, why.prediction.features, model)
    return fields | {
        "why": [[reason.text, "raises" if reason.raises else "lowers"] for reason in found],
        "why.at": f"For the prediction of {formats.moment(why.prediction.at)}.",
        "method": f"Contributions in {why.explanation.scale}: {why.explanation.method}.",
    }


def _points(patient: Patient, shown: set[str]) -> Fields:
    """The points of the curves. A point's parameter is None if the page has no curve for it."""
    if patient.vitals.keys() <= shown:
        return patient.points
    return {
        seq: [at, parameter if parameter in shown else None, value, probability]
        for seq, (at, parameter, value, probability) in patient.points.items()
        if parameter in shown or probability is not None
    }


def _features(latest: Prediction | None, why: Why | None) -> Content:
    """The features of the explained prediction, or else of the latest prediction."""
    explanation = why.explanation if why else None
    basis = why.prediction if why and explanation else latest
    if basis is None:
        return {}
    shares: Mapping[str, float] = explanation.contributions if explanation else {}
    widest = max((abs(value) for value in shares.values()), default=0.0) or 1.0
    content: dict[str, Fields] = {}
    if explanation and explanation.base is not None:
        content["feature:"] = _feature("starting point", "", explanation.base)
    names = sorted(basis.features, key=lambda name: -abs(shares.get(name, 0.0)))
    for name in names[:FEATURES_SHOWN]:
        value = basis.features[name]
        shown = "missing" if value is None else formats.number(value)
        content[f"feature:{name}"] = _feature(name, shown, shares.get(name), widest)
    return content


def _feature(name: str, value: str, share: float | None, widest: float = math.inf) -> Fields:
    """A row with a bar. The bar begins in the middle (x = 100 of 200) and goes to the left if the
    feature lowers the risk.
    """
    length = 0 if share is None else round(100 * min(1.0, abs(share) / widest))
    sign = "+" if share is not None and share > 0 else ""
    return {
        "name": name,
        "value": value,
        "contribution": "" if share is None else sign + formats.number(share, 3),
        "bar.x": str(100 - length if share is not None and share < 0 else 100),
        "bar.width": str(length),
        "bar.kind": "" if share is None else "raises" if share > 0 else "lowers",
    }
