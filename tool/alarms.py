"""Computes the alarms of each model by applying `wire.alarms` to the stored predictions.

Processes the predictions, acknowledgements and discharges of a stay in order of message number, up
to the first pending prediction of the model. So a model outage delays alarms but does not change
them, and the same stream gives the same alarms. Each step is one transaction, which also stores how
far the alarms are computed.
"""

import logging
from datetime import UTC, datetime, timedelta

import msgspec

from tool import metrics
from tool.database import Database, Moved
from tool.database.alarms import AlarmChanges, AlarmInputs, AlarmTables, Input, Summary
from tool.times import hours_of, text_of
from wire.alarms import Event, Policy, State, acknowledge, discharge, step
from wire.messages import ordinal
from wire.tables import AlarmRow, AlarmStateRow, ModelRow, OutboxRow

log = logging.getLogger("tool.alarms")

# Maximum number of messages per step.
STEP = 10_000
# Alarms for messages that were stored earlier are not sent to the webhook. Otherwise, when a model
# that already has stored predictions is declared, the receiver would get the alarms of all of them.
HISTORY = timedelta(days=1)

StayKey = tuple[int, str]


class Alarms:
    """Computes the alarms of every model in table `models` that has an alarm rule. webhook: whether
    to add the alarms to the outbox.
    """

    def __init__(self, database: Database, webhook: bool = False) -> None:
        self._database = database
        self._tables = AlarmTables(database)
        self._webhook = webhook

    def compute(self) -> None:
        """Processes all messages stored so far. Raises DatabaseError."""
        for model in self._database.models():
            if model.alarm is None:
                continue
            policy = msgspec.json.decode(model.alarm, type=Policy)
            for stream, last in self._tables.streams(model.model, model.version):
                try:
                    self._catch_up(stream, last, model, policy)
                except Moved:
                    log.debug(
                        "%s %s: another process stored these alarms",
                        model.model,
                        model.version,
                    )

    def _catch_up(self, stream: str, goal: int, model: ModelRow, policy: Policy) -> None:
        """Processes the messages of a stream up to `goal`, or to the first pending prediction."""
        done, pending = 0, None
        while done < goal and pending is None:
            with self._tables.inputs(stream, model.model, model.version) as inputs:
                parts = inputs.behind()
                if not parts:
                    return
                after = min(part.done for part in parts)
                done = min(after + STEP, max(part.stored for part in parts))
                pending = inputs.first_pending(after, done)
                if pending is not None:
                    done = pending - 1
                moves = [(part, min(part.stored, done)) for part in parts if part.done < done]
                changes = AlarmChanges(stream, model.model, model.version, moves)
                if moves:
                    self._take_in(inputs, after, done, policy, changes)
            if moves:
                self._tables.commit(changes)
                for row in changes.alarms:
                    metrics.ALARMS.labels(row.model, row.kind).inc()

    def _take_in(
        self, inputs: AlarmInputs, after: int, last: int, policy: Policy, changes: AlarmChanges
    ) -> None:
        """Processes the messages after `after` up to `last`.

        While a stay has no alarm, low predictions only move its clock. Then a summary of them is
        sufficient, which is several times faster than to read them all.
        """
        summaries, others = inputs.summaries(after, last), inputs.others(after, last)
        patients = {each.pat_id for each in summaries} | {each.pat_id for each in others}
        found = inputs.states(patients)
        stays = _Stays({(row.pat_id, row.date_admission): _Stay.of(row) for row in found})
        touched: dict[StayKey, _Stay] = {}
        busy = {(each.pat_id, each.date_admission) for each in others}
        loud: set[int] = set()
        for summary in summaries:
            key = (summary.pat_id, summary.date_admission)
            stay = stays[key]
            if key in busy or not stay.is_quiet(summary, policy):
                loud.add(summary.pat_id)
            else:
                stay.move(summary)
                touched[key] = stay
        recent = (datetime.now(UTC) - HISTORY).strftime("%Y-%m-%d %H:%M:%S")
        for each in sorted([*inputs.predictions(after, last, loud), *others]):
            key = (each.pat_id, each.date_admission)
            stay = stays[key]
            if each.seq <= stay.seq:
                # The message is already processed, or it was replayed after later ones.
                continue
            touched[key] = stay
            alarm = stay.take(each, policy, changes)
            if alarm is None:
                continue
            changes.alarms.append(alarm)
            if self._webhook and alarm.author is None and (each.created_at or "") > recent:
                changes.outbox.append(
                    OutboxRow(alarm.stream, alarm.seq, alarm.model, alarm.version)
                )
        changes.states += [stay.row(changes) for stay in touched.values() if stay.known]


class _Stay:
    """The state of the alarm rule for one stay, and who acknowledged its alarm."""

    def __init__(self, key: StayKey) -> None:
        self.key = key
        self.seq = 0
        self._admitted = ordinal(key[1])
        self._state = State()
        self._raised_at: float | None = None
        self._author: str | None = None

    @classmethod
    def of(cls, row: AlarmStateRow) -> "_Stay":
        stay = cls((row.pat_id, row.date_admission))
        stay.seq = row.seq
        stay._state = State(
            hours_of(row.clock, stay._admitted),
            stay._hours(row.since),
            row.raised_seq,
            stay._hours(row.rung_at),
            stay._hours(row.quiet_until),
            stay._hours(row.first_at),
        )
        stay._raised_at = stay._hours(row.raised_at)
        stay._author = row.acknowledged_by
        return stay

    @property
    def known(self) -> bool:
        """Whether a prediction or a discharge has changed the state."""
        return self._state != State()

    def is_quiet(self, summary: Summary, policy: Policy) -> bool:
        """Whether these predictions are new and cannot raise or clear an alarm."""
        silent = self._state.raised is None and summary.highest < policy.at
        return silent and summary.first_seq > self.seq

    def move(self, summary: Summary) -> None:
        """Processes predictions that can neither raise nor clear an alarm."""
        first = hours_of(summary.first_at, self._admitted)
        last = hours_of(summary.last_at, self._admitted)
        state = self._state
        self.seq = summary.last_seq
        self._state = state._replace(
            clock=max(state.clock, last),
            since=None,
            first=first if state.first is None else min(state.first, first),
        )

    def take(self, each: Input, policy: Policy, changes: AlarmChanges) -> AlarmRow | None:
        """Processes the next message of the stay; returns the alarm event that the message causes,
        if any.
        """
        self.seq = each.seq
        at = hours_of(each.at, self._admitted)
        if each.kind == "acknowledgement":
            return self._acknowledge(each, at, policy, changes)
        if each.kind == "discharge":
            self._state, event = discharge(self._state, each.seq, at)
        else:
            assert each.value is not None
            self._state, event = step(policy, self._state, each.seq, at, each.value)
        if event is None:
            return None
        if event.kind == "raise":
            self._raised_at = event.at
        elif event.kind == "clear":
            self._raised_at = self._author = None
        return self._event(event, policy, changes)

    def _acknowledge(
        self, each: Input, at: float, policy: Policy, changes: AlarmChanges
    ) -> AlarmRow | None:
        raised = self._state.raised
        if raised is None:
            return None
        state = acknowledge(self._state, at, each.value or 0.0)
        # The time is rounded to seconds as in the table, so that a restart does not change an
        # alarm.
        self._state = state._replace(quiet_until=self._hours(self._text(state.quiet_until)))
        self._author = each.author
        return AlarmRow(
            *(changes.stream, each.seq, changes.model, changes.version, *self.key),
            *("acknowledge", raised, text_of(self._admitted, at), None),
            *(policy.revision, each.author),
        )

    def _event(self, event: Event, policy: Policy, changes: AlarmChanges) -> AlarmRow:
        return AlarmRow(
            *(changes.stream, event.seq, changes.model, changes.version, *self.key),
            *(event.kind, event.raised, text_of(self._admitted, event.at)),
            *(event.probability, policy.revision, None),
        )

    def row(self, changes: AlarmChanges) -> AlarmStateRow:
        state = self._state
        return AlarmStateRow(
            *(changes.stream, *self.key, changes.model, changes.version, self.seq),
            *(text_of(self._admitted, state.clock), self._text(state.since), state.raised),
            *(self._text(self._raised_at), self._text(state.rung_at)),
            *(self._text(state.quiet_until), self._author, self._text(state.first)),
        )

    def _hours(self, text: str | None) -> float | None:
        return None if text is None else hours_of(text, self._admitted)

    def _text(self, hours: float | None) -> str | None:
        return None if hours is None else text_of(self._admitted, hours)


class _Stays(dict[StayKey, _Stay]):
    """The stays by key; a stay without a stored state is new."""

    def __missing__(self, key: StayKey) -> _Stay:
        stay = self[key] = _Stay(key)
        return stay
