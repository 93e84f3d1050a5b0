"""Converts observations to readings of the stream, and corrections to withdrawals."""

from collections.abc import Sequence

from gateway.beds import Beds
from gateway.facts import Observed, Replaced, Value, is_unnamed
from gateway.log import Log
from gateway.refs import Entry, Ref, Refs
from gateway.stays import Stay
from gateway.times import Moment, clock
from wire.messages import Reading, Withdrawal


class Readings:
    """Adds and withdraws readings."""

    def __init__(self, log: Log, beds: Beds) -> None:
        self._log = log
        self._beds = beds
        self.refs = Refs(log.connection)

    def observe(self, fact: Observed, pat_id: int) -> None:
        """Applies the observations of a patient."""
        if self._all_new(fact):
            self._add(fact, fact.values, pat_id)
            return
        for value in fact.values:
            if not self._corrected(fact, value, pat_id):
                self._add(fact, [value], pat_id)

    def replace(self, fact: Replaced) -> None:
        """Withdraws the values that a source no longer contains."""
        for ref in self.refs.of_source(fact.source):
            if ref.name not in fact.kept:
                self.withdraw(ref)

    def withdraw(self, ref: Ref) -> None:
        self.refs.drop(ref)
        self._log.send(Withdrawal(ref.pat_id, ref.admission, ref.seq))

    def add(self, stay: Stay, source: str, at: Moment, values: Sequence[Value]) -> None:
        """Sends the readings of one time and records them. No value may be None."""
        pat_id, age, admission = stay.pat_id, stay.age, stay.admission
        until = stay.until[:10] if stay.until else None
        day, hour, minute, second = clock(at)
        readings = [
            Reading(pat_id, age, admission, until, day, hour, v.parameter, v.value, minute, second)
            for v in values
            if v.value is not None
        ]
        first = self._log.send(*readings)
        entries = [
            Entry(value.name, seq, reading.parameter, reading.value)
            for seq, (value, reading) in enumerate(zip(values, readings, strict=True), first)
        ]
        self.refs.add((source, at, pat_id, admission), entries)

    def _all_new(self, fact: Observed) -> bool:
        """Whether no value replaces another value of this message or of an earlier message."""
        if any(value.corrects or value.value is None for value in fact.values):
            return False
        if is_unnamed(fact.source):
            return True
        names = {value.name for value in fact.values}
        known = self.refs.at(fact.source, fact.at)
        return len(names) == len(fact.values) and known.keys().isdisjoint(names)

    def _corrected(self, fact: Observed, value: Value, pat_id: int) -> bool:
        """Withdraws the reading that a value replaces; rejects a withdrawal of an unknown value.

        Returns True if there is nothing to add.
        """
        unnamed = is_unnamed(fact.source)
        if unnamed and value.value is not None and not value.corrects:
            return False  # it may be another observation, not a repeat
        same_time = self.refs.at(fact.source, fact.at).get(value.name, [])
        # The orders of several patients may have the same number, so the patient's own reading
        # takes precedence. But a correction may be of another patient, or of another time.
        earlier = [ref for ref in same_time if ref.pat_id == pat_id]
        if not earlier and (value.corrects or (value.value is None and not unnamed)):
            latest = self.refs.latest
            earlier = (
                same_time
                or latest(fact.source, value.name, pat_id)
                or latest(fact.source, value.name)
            )
        if value.value is None and not earlier:
            self._log.reject(f"{value.parameter}: a withdrawal of an unknown value", pat_id)
        same = (fact.at, pat_id, value.parameter, value.value)
        if any((ref.at, ref.pat_id, ref.parameter, ref.value) == same for ref in earlier):
            return True  # another message has already sent the same value
        for ref in earlier:
            self.withdraw(ref)
        return value.value is None

    def _add(self, fact: Observed, values: list[Value], pat_id: int) -> None:
        stay = self._stay_at(pat_id, fact)
        if stay is not None:
            self.add(stay, fact.source, fact.at, values)
            return
        for value in values:
            self._log.reject(f"{value.parameter}: the patient is not in the ICU", pat_id)

    def _stay_at(self, pat_id: int, fact: Observed) -> Stay | None:
        """The stay at the time of a reading or, without one, the latest stay if it had not
        ended by then.

        If there is neither, opens a stay if the bed is in the ICU, and returns None otherwise. A
        reading without a bed may be a late result. After a discharge, it begins no stay, because
        nothing would end that stay.
        """
        stays = self._beds.stays
        stay = stays.at(pat_id, fact.at)
        if stay is not None:
            return stay
        latest = stays.latest(pat_id)
        if latest is not None and (latest.until is None or fact.at < latest.until):
            return latest  # before the admission; the tool will reject it
        if self._beds.in_icu(fact.place) and (fact.place is not None or latest is None):
            return self._beds.open(pat_id, fact.at, fact.place, by="observation")
        return None
