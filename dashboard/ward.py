"""Reads all patients in the ICU in order of risk, and the curves of those with the highest risk."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from dashboard.alarms import NO_ALARMS, WardAlarms, read_alarms
from dashboard.columns import columns
from dashboard.database import Database
from dashboard.queries import WARD_LIMIT
from dashboard.rows import (
    Latest,
    ModelKey,
    Reading,
    Risk,
    Stay,
    StayKey,
    Summary,
    earlier,
)
from dashboard.stream_clock import StreamClock
from wire.vitals import Vital

DAY = timedelta(hours=24)
# Hours over which the change of a risk is measured.
CHANGE_HOURS = 6
# Number of beds with curves: as many as fit on a wall display. The list of all patients shows the
# others.
SHOWN = 120
# Maximum number of readings in the curves of a bed.
BED_READINGS = 5_000
# Maximum seconds per round for stays whose risk needs its own query.
RISK_SECONDS = 0.5


@dataclass(frozen=True)
class Ranked:
    """A stay in the ICU with its latest risk."""

    summary: Summary
    risk: Risk | None

    @property
    def stay(self) -> Stay:
        return self.summary.stay


@dataclass(frozen=True)
class Bed:
    """A stay with its latest values and the curves of its last 24 hours. without: the reason why
    the newest reading has no probability. waits: whether a prediction is pending.
    """

    stay: Stay
    summary: Summary
    vitals: dict[str, Latest]
    recent: dict[str, list[tuple[datetime, float]]]
    risk: Risk | None
    history: list[tuple[datetime, float]]
    without: str
    waits: bool

    @property
    def change(self) -> float | None:
        """The change since the newest prediction that is at least CHANGE_HOURS older; None if there
        is no such prediction.
        """
        if self.risk is None:
            return None
        then = earlier(self.risk.at, timedelta(hours=CHANGE_HOURS))
        before = [probability for at, probability in self.history if at <= then]
        return self.risk.probability - before[-1] if before else None


@dataclass(frozen=True)
class Ward:
    """The ward at one time. full: whether the ICU has more patients than `ranked` contains."""

    clock: StreamClock
    ranked: list[Ranked]
    beds: list[Bed]
    discharged: list[Stay]
    full: bool = False
    alarms: WardAlarms = NO_ALARMS

    @property
    def signs(self) -> list[Vital]:
        return columns({parameter for bed in self.beds for parameter in bed.vitals})


@dataclass
class _Memory:
    """The data that earlier rounds have read for one stream and model."""

    of: tuple[str, ModelKey | None]
    ranked: dict[StayKey, Ranked] = field(default_factory=dict)
    # Stays whose risk needs its own query, oldest first.
    unread: dict[StayKey, None] = field(default_factory=dict)
    beds: dict[StayKey, Bed] = field(default_factory=dict)


class WardReader:
    """Reads the ward. After the first call, reads predictions and curves only of stays that have
    changed since the last call."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._memory = _Memory(("", None))

    def read(self, clock: StreamClock, model: ModelKey | None, model_answered: bool) -> Ward:
        """Reads the ward, with the predictions of `model`. model_answered: whether pending
        predictions may have been filled in since the last call.
        """
        if self._memory.of != (clock.stream, model):
            self._memory = _Memory((clock.stream, model))
        summaries = self._database.ward(clock.stream)
        full = len(summaries) > WARD_LIMIT
        self._rank(clock.stream, model, summaries[:WARD_LIMIT], model_answered)
        ranked = sorted(self._memory.ranked.values(), key=_by_risk)
        beds = {
            each.stay.key: self._bed(clock, model, each, model_answered) for each in ranked[:SHOWN]
        }
        self._memory.beds = beds
        return Ward(
            clock,
            ranked,
            list(beds.values()),
            self._database.discharged(clock.stream),
            full,
            read_alarms(self._database, clock, model, summaries),
        )

    def _rank(
        self, stream: str, model: ModelKey | None, summaries: list[Summary], model_answered: bool
    ) -> None:
        """Updates the risks. Reads the predictions for the stays' last readings in bulk, and all
        others one by one."""
        before, unread = self._memory.ranked, self._memory.unread
        ranked: dict[StayKey, Ranked] = {}
        changed: list[Summary] = []
        for summary in summaries:
            known = before.get(summary.stay.key)
            if known is None or known.summary[1:] != summary[1:]:
                changed.append(summary)
            ranked[summary.stay.key] = Ranked(summary, known.risk if known else None)
        risks = self._database.risks(stream, model, changed) if model else {}
        # Only now, because after an error the next call must find the same changes.
        self._memory.ranked = ranked
        if model is None:
            return
        for summary in changed:
            key = summary.stay.key
            unread.pop(key, None)
            if key in risks:
                ranked[key] = Ranked(summary, risks[key])
            elif summary.n:
                unread[key] = None
        if model_answered:
            unread |= {key: None for key, each in ranked.items() if _behind(each)}
        self._read_risks(stream, model)

    def _read_risks(self, stream: str, model: ModelKey) -> None:
        ranked, unread = self._memory.ranked, self._memory.unread
        end = time.monotonic() + RISK_SECONDS
        while unread and time.monotonic() < end:
            key = next(iter(unread))
            known = ranked.get(key)
            if known is not None and known.summary.last_at is not None:
                after = earlier(known.summary.last_at, DAY)
                ranked[key] = replace(known, risk=self._database.risk(stream, key, model, after))
            del unread[key]

    def _bed(
        self, clock: StreamClock, model: ModelKey | None, ranked: Ranked, model_answered: bool
    ) -> Bed:
        key, summary = ranked.stay.key, ranked.summary
        known = self._memory.beds.get(key)
        if known and known.summary == summary and not (known.waits and model_answered):
            return known
        vitals: dict[str, Latest] = {}
        readings: list[Reading] = []
        if summary.last_at is not None:
            vitals = self._database.vitals_of(clock.stream, key)
            after = earlier(summary.last_at, DAY)
            readings = self._database.readings(clock.stream, key, model, after, BED_READINGS)
        recent: dict[str, list[tuple[datetime, float]]] = {}
        for reading in readings:
            recent.setdefault(reading.parameter, []).append((reading.at, reading.value))
        history = risk_history(readings)
        risk = Risk(history[-1][1], history[-1][0], 0) if history else None
        waits = any(each.predicted and each.probability is None for each in readings)
        without = why_none(readings, model)
        return Bed(ranked.stay, summary, vitals, recent, risk, history, without, waits)


def _behind(ranked: Ranked) -> bool:
    """Whether the newest reading has no probability yet."""
    return ranked.risk is None or ranked.risk.at != ranked.summary.last_at


def _by_risk(ranked: Ranked) -> tuple[bool, float, int]:
    risk = ranked.risk
    return (risk is None, 0.0 if risk is None else -risk.probability, ranked.stay.key.pat_id)


def risk_history(readings: Iterable[Reading]) -> list[tuple[datetime, float]]:
    """The probabilities in order of time. Of several predictions for the same time the last one
    counts, because it used all values of that time."""
    by_time: dict[datetime, float] = {}
    for reading in sorted(readings, key=lambda reading: reading.seq):
        if reading.probability is not None:
            by_time[reading.at] = reading.probability
    return sorted(by_time.items())


def why_none(readings: list[Reading], model: ModelKey | None) -> str:
    """The reason why the newest reading has no probability; empty if it has one."""
    if not readings:
        return "no reading yet"
    newest = max(readings, key=lambda reading: reading.seq)
    if newest.probability is not None:
        return ""
    if newest.predicted:
        return newest.reason or "waiting for the model"
    return f"no prediction by {model.name}" if model else "no model"
