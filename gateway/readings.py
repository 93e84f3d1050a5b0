"""Observations as readings of the stream, and the withdrawals of those that are corrected."""

from gateway.beds import Beds
from gateway.facts import Observed, Replaced, Value
from gateway.log import Log
from gateway.refs import Group, Ref, Refs
from gateway.stays import Stay
from gateway.times import clock
from wire.messages import Reading, Withdrawal


class Readings:
    """Adds and withdraws readings."""

    def __init__(self, log: Log, beds: Beds) -> None:
        self._log = log
        self._beds = beds
        self.refs = Refs(log.connection)

    def observe(self, fact: Observed, number: int) -> None:
        """Applies the observations of the patient with this number."""
        stay: Stay | None = None
        for value in fact.values:
            earlier = self._earlier(fact, value, number)
            if value.value is None:
                if not earlier:
                    reason = f"{value.parameter}: a withdrawal of an unknown value"
                    self._log.reject(reason, number)
            elif earlier and any(
                (ref.at, ref.pat_id, ref.parameter, ref.value)
                == (fact.at, number, value.parameter, value.value)
                for ref in earlier
            ):
                continue  # the same again, in another message
            for ref in earlier:
                self.withdraw(ref)
            if value.value is not None:
                stay = stay or self._stay_at(number, fact)
                if stay is None:
                    reason = f"{value.parameter}: the patient is not in the ICU"
                    self._log.reject(reason, number)
                else:
                    group = (fact.source, fact.at, number, stay.admission)
                    self.add(stay, group, value.name, value.parameter, value.value)

    def replace(self, fact: Replaced) -> None:
        """Withdraws what a source no longer contains."""
        for ref in self.refs.of_source(fact.source):
            if ref.name not in fact.kept:
                self.withdraw(ref)

    def withdraw(self, ref: Ref) -> None:
        self.refs.drop(ref)
        self._log.send(Withdrawal(ref.pat_id, ref.admission, ref.seq))

    def add(self, stay: Stay, group: Group, name: str, parameter: str, value: float) -> None:
        """Sends a reading and remembers it."""
        _, at, number, admission = group
        until = stay.until[:10] if stay.until else None
        day, hour, minute, second = clock(at)
        reading = Reading(
            number, stay.age, admission, until, day, hour, parameter, value, minute, second
        )
        self.refs.add(group, name, self._log.send(reading), parameter, value)

    def _earlier(self, fact: Observed, value: Value, number: int) -> list[Ref]:
        """The readings that this value replaces, or withdraws."""
        if fact.source[0] == "#" and value.value is not None and not value.corrects:
            return []  # without a filler number nothing shows that it is the same observation
        same = self.refs.at(fact.source, fact.at, value.name)
        if value.corrects:
            latest = None if same else self.refs.latest(fact.source, value.name)
            return [latest] if latest else same
        return [ref for ref in same if ref.pat_id == number]

    def _stay_at(self, number: int, fact: Observed) -> Stay | None:
        """The stay that a reading belongs to; opens one for a patient first seen in the ICU."""
        stays = self._beds.stays
        stay = stays.at(number, fact.at)
        if stay is not None:
            return stay
        latest = stays.latest(number)
        if latest is not None and (latest.until is None or fact.at < latest.until):
            return latest  # before its admission: the tool rejects it
        if self._beds.in_icu(fact.place):
            return self._beds.open(number, fact.at, fact.place, by="observation")
        return None
