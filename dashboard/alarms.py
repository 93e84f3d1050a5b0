"""The alarms of a ward and of a stay, in words."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from dashboard import formats
from dashboard.database import Database
from dashboard.model_info import ModelInfo
from dashboard.patient import Patient, Why
from dashboard.rows import Alarm, ModelKey, StayKey, Summary, earlier, hours
from dashboard.stream_clock import StreamClock
from dashboard.topic import Fields
from dashboard.why import reasons
from wire.alarms import Policy

DAY = timedelta(hours=24)
REASONS = 3


@dataclass(frozen=True)
class WardAlarms:
    """The active alarms of a ward, by stay. rule: None for a model without an alarm rule. per_day:
    alarms per patient-day over the last `hours`, at most 24; None without a rule, or if the
    readings cover less than one patient-hour."""

    on: Mapping[StayKey, Alarm]
    rule: Policy | None = None
    per_day: float | None = None
    hours: float = 0.0


NO_ALARMS = WardAlarms({})


def read_alarms(
    database: Database, clock: StreamClock, model: ModelKey | None, stays: Iterable[Summary]
) -> WardAlarms:
    """Reads the alarms of `model`. stays: the stays in the ICU."""
    rule = database.alarm_rule(model) if model else None
    if model is None or rule is None:
        return NO_ALARMS
    after = earlier(clock.now, DAY)
    spans = database.discharged_after(clock.stream, after)
    spans |= {each.stay.key: (each.first_at, clock.now) for each in stays if each.first_at}
    watched = sum(max(0.0, hours(max(first, after), last)) for first, last in spans.values())
    start = min((max(first, after) for first, _ in spans.values()), default=clock.now)
    rings = database.rings(clock.stream, model, after)
    per_day = rings / (watched / 24) if watched >= 1 else None
    covered = hours(start, clock.now)
    return WardAlarms(database.alarms_on(clock.stream, model), rule, per_day, covered)


def ward_sentence(alarms: WardAlarms) -> str:
    """The number of active alarms in words; empty for a model without an alarm rule."""
    if alarms.rule is None:
        return ""
    count = len(alarms.on)
    return f"{count or 'No'} alarm{'' if count == 1 else 's'} now."


def rate_sentence(alarms: WardAlarms) -> str:
    """How often the rule raises an alarm, in words; empty if that is unknown."""
    if alarms.rule is None or alarms.per_day is None or alarms.hours < 1:
        return ""
    return f"{alarms.per_day:.2g} per patient-day in the last {alarms.hours:.0f} h."


def rule_sentence(rule: Policy, model: ModelInfo) -> str:
    """The alarm rule in words.

    >>> info = ModelInfo(ModelKey("m", "1"))
    >>> rule = Policy(at=0.25, clear=0.2, for_hours=1, silence_hours=6)
    >>> rule_sentence(rule, info).replace("\N{NO-BREAK SPACE}", " ")
    'An alarm is raised after 1 h at 25 % or above, at most once in 6 h, and is cleared below 20 %.'
    """
    lasting = f" after {rule.for_hours:g} h" if rule.for_hours else ""
    once = f", at most once in {rule.silence_hours:g} h," if rule.silence_hours else ""
    at = model.amount(rule.at)
    clear = model.amount(rule.at if rule.clear is None else rule.clear)
    return f"An alarm is raised{lasting} at {at} or above{once} and is cleared below {clear}."


def bed_alarm(alarm: Alarm | None, now: datetime) -> Fields:
    """The alarm fields of a bed."""
    if alarm is None:
        return {"alarm": "", "alarm.since": "", "alarm.by": ""}
    # Only the comma separates lines.
    age = formats.age(hours(alarm.raised_at, now)).replace(" ", "\N{NO-BREAK SPACE}")
    since = f"since {formats.clock(alarm.raised_at)}, {age}"
    return {"alarm": _state(alarm), "alarm.since": since, "alarm.by": _by(alarm, now)}


def _state(alarm: Alarm) -> str:
    return "on" if alarm.acknowledged_by is None else "seen"


def _by(alarm: Alarm, now: datetime) -> str:
    if alarm.acknowledged_by is None:
        return ""
    quiet = alarm.quiet_until
    until = f", quiet until {formats.clock(quiet)}" if quiet and quiet > now else ""
    return f"seen by {alarm.acknowledged_by}{until}"


def patient_alarm(patient: Patient, model: ModelInfo, why: Why | None) -> dict[str, Any]:
    """The alarm fields of a patient page. alarm.marks: the time (seconds since 1970) and the kind
    of each event."""
    rule, events = patient.rule, patient.alarms
    fields: dict[str, Any] = {"alarm": "", "alarm.text": "", "alarm.by": "", "alarm.why": ""}
    fields["alarm.rule"] = rule_sentence(rule, model) if rule else "This model raises no alarms."
    fields["alarm.at"] = rule.at if rule else None
    fields["alarm.marks"] = [
        [int(event.at.replace(tzinfo=UTC).timestamp()), event.kind] for event in events
    ]
    raised = [event for event in events if event.kind == "raise"]
    if not raised:
        return fields | {"alarm.text": "No alarm so far." if rule else ""}
    last = raised[-1]
    reached = f"the {model.noun.lower()} reached {model.amount(last.probability or 0)}"
    fields["alarm.why"] = _reasons(why, model)
    if patient.alarm is None:
        end = events[-1].at
        past = (
            f"No alarm is active. The last was raised on {formats.moment(last.at)}, when {reached},"
        )
        return fields | {"alarm.text": f"{past} and was cleared on {formats.moment(end)}."}
    by = _by(patient.alarm, patient.now)
    return fields | {
        "alarm": _state(patient.alarm),
        "alarm.text": f"Alarm since {formats.moment(last.at)}: {reached}.",
        "alarm.by": f"{by[:1].upper()}{by[1:]}." if by else "Nobody has acknowledged it.",
    }


def _reasons(why: Why | None, model: ModelInfo) -> str:
    """A sentence with the features that raised the probability most when the alarm was raised;
    empty if there are none."""
    if why is None or why.explanation is None:
        return ""
    found = reasons(why.explanation, why.prediction.features, model)
    texts = [reason.text.rpartition(": ")[0] for reason in found if reason.raises][:REASONS]
    return f"The main reasons at that time were: {'; '.join(texts)}." if texts else ""
