"""The dashboard's database queries."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from dashboard import queries
from dashboard.connection import Reader, Row
from dashboard.rows import (
    FIRST_MOMENT,
    Alarm,
    AlarmEvent,
    Latest,
    ModelKey,
    Position,
    Prediction,
    Reading,
    Rejected,
    Risk,
    Stay,
    StayKey,
    Summary,
    day,
    moment,
)
from wire.alarms import Policy
from wire.vitals import VITALS

# Maximum number of readings in a stay's curves; older ones are left out.
STAY_LIMIT = 20_000
# Maximum number of keys, and maximum number of (stay, time) pairs, in one statement.
CHUNK, MOMENTS = 500, 100


class Database(Reader):
    """The queries. Call them inside a snapshot."""

    def positions(self) -> list[Position]:
        """The positions of all streams."""
        return [
            Position(stream, part, seq, vitals_seq, moment(at))
            for stream, part, seq, vitals_seq, at in self.rows(queries.POSITIONS)
        ]

    def champion(self) -> ModelKey | None:
        """The champion that the tool stored last; None if there is none."""
        return next((ModelKey(*row) for row in self.rows(queries.CHAMPION)), None)

    def seen(self, model: ModelKey) -> datetime | None:
        """The time of the last declaration or backfill of a model; None if it has none."""
        return next((moment(at) for (at,) in self.rows(queries.SEEN, *model)), None)

    def newest(self, stream: str, seq: int) -> datetime | None:
        """The latest time of the last 100 readings up to message `seq`; None if there is no
        reading."""
        at = self.rows(queries.NEWEST, stream, seq)[0][0]
        return None if at is None else moment(at)

    def ward(self, stream: str) -> list[Summary]:
        """The stays without a discharge, at most WARD_LIMIT + 1."""
        return [
            Summary(
                _stay(row[:6]),
                int(row[6]),
                None if row[7] is None else moment(row[7]),
                None if row[8] is None else moment(row[8]),
                int(row[9]),
            )
            for row in self.rows(queries.WARD, stream)
        ]  # fmt: skip

    def discharged(self, stream: str) -> list[Stay]:
        """The latest discharges, newest first."""
        return [_stay(row) for row in self.rows(queries.DISCHARGED, stream)]

    def stays_of(self, stream: str, pat_id: int) -> list[Stay]:
        """A patient's stays, newest first."""
        return [_stay(row) for row in self.rows(queries.STAYS_OF, pat_id, stream)]

    def named(self, stream: str, identifier: str) -> list[Stay]:
        """The stays with this identifier, newest first, at most SEARCH_LIMIT."""
        return [_stay(row) for row in self.rows(queries.NAMED, stream, identifier)]

    def vitals_of(self, stream: str, key: StayKey) -> dict[str, Latest]:
        """The latest values of a stay: all known vitals, and at most OTHERS_LIMIT + 1 others."""
        arguments = (*_text(key), stream, *VITALS)
        rows = self.rows(queries.VITALS_OF, *arguments) + self.rows(queries.OTHERS_OF, *arguments)
        return {
            parameter: Latest(n, moment(first), value, moment(at), seq)
            for parameter, n, first, value, at, seq in rows
        }

    def parameters_of(
        self, stream: str, keys: Sequence[StayKey]
    ) -> dict[StayKey, dict[str, datetime]]:
        """The time of the first value of each parameter, for each of these stays."""
        found: dict[StayKey, dict[str, datetime]] = {key: {} for key in keys}
        for start in range(0, len(keys), MOMENTS):
            chunk = keys[start : start + MOMENTS]
            sql = queries.PARAMETERS_OF.format(stays=" OR ".join([queries.STAY_IS] * len(chunk)))
            wanted = [value for key in chunk for value in _text(key)]
            for pat_id, admitted, parameter, first in self.rows(sql, stream, *wanted):
                found[StayKey(pat_id, day(admitted))][parameter] = moment(first)
        return found

    def answers(self, stream: str, model: ModelKey, seqs: Sequence[int]) -> dict[int, float]:
        """The model's probabilities for these readings, by seq."""
        found: dict[int, float | None] = {}
        for start in range(0, len(seqs), CHUNK):
            chunk = seqs[start : start + CHUNK]
            sql = queries.ANSWERS.format(marks=", ".join("?" * len(chunk)))
            found |= dict(self.rows(sql, stream, *model, *chunk))
        return {seq: probability for seq, probability in found.items() if probability is not None}

    def risks(
        self, stream: str, model: ModelKey, summaries: Sequence[Summary]
    ) -> dict[StayKey, Risk]:
        """The model's probability for the last reading of each stay. Leaves out the stays whose
        last reading has no probability."""
        found: dict[StayKey, Risk] = {}
        for start in range(0, len(summaries), MOMENTS):
            chunk = [each for each in summaries[start : start + MOMENTS] if each.last_at]
            if not chunk:
                continue
            sql = queries.RISKS.format(moments=" OR ".join([queries.MOMENT] * len(chunk)))
            wanted = [
                value
                for each in chunk
                if each.last_at
                for value in (*_text(each.stay.key), each.last_at.isoformat(" "))
            ]
            for pat_id, admitted, probability, at, seq in self.rows(sql, *model, stream, *wanted):
                key = StayKey(pat_id, day(admitted))
                # Of several predictions for the same time the last one counts, because it used all
                # values of that time.
                if key not in found or found[key].seq < seq:
                    found[key] = Risk(probability, moment(at), seq)
        return found

    def risk(self, stream: str, key: StayKey, model: ModelKey, after: datetime) -> Risk | None:
        """The model's latest probability for a stay, from a reading later than `after`."""
        rows = self.rows(queries.RISK, *model, *_text(key), stream, after.isoformat(" "))
        return next((Risk(probability, moment(at), seq) for probability, at, seq in rows), None)

    def readings(
        self,
        stream: str,
        key: StayKey,
        model: ModelKey | None,
        after: datetime = FIRST_MOMENT,
        limit: int = STAY_LIMIT,
    ) -> list[Reading]:
        """A stay's readings later than `after`, at most the newest `limit`, in order of time."""
        asked = (*(model or ("", "")), *_text(key), after.isoformat(" "), stream, limit)
        return [_reading(row) for row in reversed(self.rows(queries.READINGS, *asked))]

    def readings_since(
        self, stream: str, key: StayKey, model: ModelKey | None, seq: int
    ) -> list[Reading]:
        """A stay's readings in messages after `seq`, in any order."""
        asked = (*(model or ("", "")), *_text(key), stream, seq)
        return [_reading(row) for row in self.rows(queries.READINGS_SINCE, *asked)]

    def number_of_readings(self, stream: str, key: StayKey) -> int:
        """The number of a stay's readings."""
        return int(self.rows(queries.NUMBER_OF_READINGS, *_text(key), stream)[0][0])

    def prediction(self, stream: str, seq: int, model: ModelKey) -> Prediction | None:
        """The prediction of a model at one reading; None if there is none."""
        for at, probability, reason in self.rows(queries.PREDICTION, stream, seq, *model):
            features: dict[str, float | None] = dict(
                self.rows(queries.FEATURES, stream, seq, *model)
            )
            return Prediction(model, moment(at), features, probability, reason)
        return None

    def rejected_of(self, stream: str, pat_id: int) -> list[Rejected]:
        """A patient's newest rejected messages, newest first."""
        return [Rejected(*row) for row in self.rows(queries.REJECTED_OF, pat_id, stream)]

    def rejected_after(self, stream: str, seq: int, to: int, limit: int) -> list[tuple[int, str]]:
        """The message number and the reason of each rejected message after `seq`, up to `to`; at
        most the first `limit` messages."""
        rows = self.rows(queries.REJECTED_AFTER, stream, seq, to, limit)
        return [(position, reason) for position, reason in rows]

    def rejected_up_to(self, stream: str, seq: int, limit: int) -> int:
        """The number of rejected messages up to `seq`; at most `limit`."""
        return int(self.rows(queries.REJECTED_UP_TO, stream, seq, limit)[0][0])

    def alarm_rule(self, model: ModelKey) -> Policy | None:
        """The alarm rule of the model; None if it has none."""
        found = [alarm for (alarm,) in self.rows(queries.ALARM_RULE, *model) if alarm is not None]
        return msgspec.json.decode(found[0], type=Policy) if found else None

    def alarms_on(self, stream: str, model: ModelKey) -> dict[StayKey, Alarm]:
        """The active alarms of a model."""
        return {
            StayKey(pat_id, day(admitted)): Alarm(moment(at), author, quiet and moment(quiet))
            for pat_id, admitted, at, author, quiet in self.rows(queries.ALARMS_ON, stream, *model)
        }

    def alarm_of(self, stream: str, key: StayKey, model: ModelKey) -> Alarm | None:
        """The active alarm of a stay; None if it has none."""
        for at, author, quiet in self.rows(queries.ALARM_OF, *_text(key), *model, stream):
            return Alarm(moment(at), author, quiet and moment(quiet))
        return None

    def rings(self, stream: str, model: ModelKey, after: datetime) -> int:
        """The number of a model's alarms after a time, including repeated ones."""
        return int(self.rows(queries.RINGS, stream, *model, after.isoformat(" "))[0][0])

    def discharged_after(
        self, stream: str, after: datetime
    ) -> dict[StayKey, tuple[datetime, datetime]]:
        """The times of the first reading and of the discharge of each stay that was discharged
        after a time."""
        return {
            StayKey(pat_id, day(admitted)): (moment(first), moment(left))
            for pat_id, admitted, first, left in self.rows(
                queries.DISCHARGED_AFTER, stream, after.isoformat(" ")
            )
        }

    def alarm_events(self, stream: str, key: StayKey, model: ModelKey) -> list[AlarmEvent]:
        """The events of a stay's alarms, at most the newest ALARM_LIMIT, oldest first."""
        return [
            AlarmEvent(seq, kind, moment(at), probability, author)
            for seq, kind, at, probability, author in reversed(
                self.rows(queries.ALARM_EVENTS, *_text(key), stream, *model)
            )
        ]

    def pending(self, stream: str) -> int:
        """The number of pending predictions, up to PENDING_LIMIT + 1."""
        return int(self.rows(queries.PENDING, stream)[0][0])


def _reading(row: Row) -> Reading:
    seq, at, parameter, value, predicted, probability, reason = row
    return Reading(seq, moment(at), parameter, value, predicted is not None, probability, reason)


def _stay(row: Row) -> Stay:
    pat_id, admitted, age, discharged, identifier, place = row
    left = None if discharged is None else day(discharged)
    return Stay(StayKey(pat_id, day(admitted)), age, left, identifier, place)


def _text(key: StayKey) -> Sequence[Any]:
    """The key as arguments of a query. SQLite has no dates, so its tables contain ISO text."""
    return (key.pat_id, key.admitted.isoformat())
