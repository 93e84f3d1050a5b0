"""The drift task: once per stream day, compares the day's readings and predictions with training.

A day is complete when three conditions hold: there is a reading of a later day, every partition
that is not idle has stored its messages up to that reading, and the alarms up to it are computed.
The day's figures do not include readings that come later.
"""

import logging
from collections.abc import Collection, Iterator
from datetime import datetime, timedelta

from tool import drift_figures, metrics
from tool.database.drift import DriftTables
from tool.declarations import Subscriber
from tool.drift_figures import OUTCOMES, Figure, StayDay
from tool.model_client import Model
from wire.drift import DriftRow, Reference

log = logging.getLogger("tool")

# Maximum number of readings per round, because the other background tasks wait meanwhile.
READINGS = 20_000
# A partition counts as idle if it has stored nothing for this time while others have.
IDLE = timedelta(hours=1)

Days = dict[str, dict[tuple[int, str], StayDay]]


class Drift:
    """Writes the figures of complete days, and keeps the readings of the other days in memory."""

    def __init__(self, tables: DriftTables, declared: Subscriber) -> None:
        self._tables = tables
        self._declared = declared
        self._references: list[tuple[Model, Reference]] = []
        self._stream: str | None = None
        self._days: Days = {}
        self._seq = 0
        # The last day with figures, and the message after which later days begin.
        self._done, self._begun = "", 0
        # The figures of the last day, by model, version, parameter and name.
        self._before: dict[tuple[str, ...], Figure] = {}

    def update(self) -> None:
        """Reads the next readings, and writes the figures of each complete day.

        Raises DatabaseError or RedisError.
        """
        if (declaration := self._declared.changed()) is not None:
            models = (declaration.champion, *declaration.shadows)
            self._references = [(model, model.reference) for model in models if model.reference]
        if not self._references:
            return
        stream = self._tables.newest_stream()
        if stream is None:
            return
        if stream != self._stream:
            self._resume(stream)
        self._read(stream, self._complete_to(stream))
        for day in sorted(self._days)[:-1]:
            self._write(stream, day)

    def _resume(self, stream: str) -> None:
        """Resumes at the last day that has figures. This day is computed again, so that its metrics
        are set."""
        done, begun = self._tables.before_last(stream)
        rows = self._tables.figures(stream, done) if done else []
        # Only now, because after an error the next round must resume too.
        self._stream, self._days = stream, {}
        self._done, self._begun, self._seq = done, begun, begun
        self._before = {
            (row.model, row.version, row.parameter, row.figure): Figure(
                row.parameter, row.figure, row.stays, row.value, row.low, row.high
            )
            for row in rows
        }

    def _complete_to(self, stream: str) -> int:
        """The last message up to which all messages are stored and the alarms of all models are
        computed."""
        positions = [
            (seq, datetime.fromisoformat(at)) for seq, at in self._tables.positions(stream)
        ]
        newest = max(at for _, at in positions)
        stored = min(seq for seq, at in positions if newest - at < IDLE)
        alarms = (
            self._tables.alarms_to(stream, model.model, model.version)
            for model, _ in self._references
            if model.alarm is not None
        )
        return min([stored, *(seq for seq in alarms if seq is not None)])

    def _read(self, stream: str, to: int) -> None:
        """Processes the next readings, at most up to message `to`."""
        rows = self._tables.readings(stream, self._seq, to, READINGS)
        for seq, pat_id, admitted, at, parameter, value in rows:
            self._seq = seq
            day = at[:10]
            if day > self._done:
                stays = self._days.setdefault(day, {})
                if (stay := stays.get((pat_id, admitted))) is None:
                    stay = stays[pat_id, admitted] = StayDay(seq)
                stay.add(seq, at, parameter, value)
        if len(rows) < READINGS:
            self._seq = max(self._seq, to)

    def _write(self, stream: str, day: str) -> None:
        later = [
            stay.first_seq
            for other, stays in self._days.items()
            for stay in stays.values()
            if other > day
        ]
        until = min(later) - 1
        days = self._days[day].values()
        rows: list[DriftRow] = []
        found: dict[tuple[str, ...], Figure] = {}
        for model, reference in self._references:
            figures = []
            for figure in self._figures(stream, model, reference, days, until):
                key = (model.model, model.version, figure.parameter, figure.name)
                found[key] = drift_figures.after(figure, self._before.get(key))
                figures.append(found[key])
            for kind, count in drift_figures.alerts(figures).items():
                metrics.DRIFT.labels(model.model, model.version, kind).set(count)
            rows += [
                DriftRow(
                    stream,
                    day,
                    model.model,
                    model.version,
                    figure.parameter,
                    figure.name,
                    figure.stays,
                    figure.value,
                    figure.low,
                    figure.high,
                    until,
                )
                for figure in figures
            ]
        self._tables.write(rows)
        del self._days[day]
        self._done, self._begun, self._before = day, until, found

    def _figures(
        self,
        stream: str,
        model: Model,
        reference: Reference,
        days: Collection[StayDay],
        until: int,
    ) -> Iterator[Figure]:
        tables, name = self._tables, (model.model, model.version)
        counted = [day for day in days if day.counts]
        yield from drift_figures.inputs(reference, counted)
        last = [day.last_seq for day in counted]
        yield drift_figures.risk(reference, tables.answers(stream, *name, last))
        if model.alarm is not None:
            yield drift_figures.alarms(tables.alarms(stream, *name, self._begun, until), days)
        count = tables.rejected(stream, self._begun, until)
        yield drift_figures.rejected(until - self._begun, count)
        pairs = []
        for pat_id, admitted, y in tables.outcomes(stream, reference.outcome, until, OUTCOMES):
            p = tables.answer_of(stream, *name, pat_id, admitted, reference.hours)
            if p is not None:
                pairs.append((p, y))
        yield from drift_figures.outcomes(pairs)
