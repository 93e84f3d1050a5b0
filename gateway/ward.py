"""The ward as the log knows it: patients, their stays in the ICU, and their readings.

Turns facts into messages of the stream. A stay is time in beds of `ICU_UNITS`; without that
setting, all beds count.
"""

from collections.abc import Collection

import msgspec

from gateway.facts import Fact, Merged, Moved, Observed, Person, Place, Replaced, Unusable
from gateway.log import Log
from gateway.patients import Patients
from gateway.stays import Stay, StayTable
from gateway.times import Moment
from wire.messages import Admission, Discharge, Message, Reading, Withdrawal

REMEMBERED = 10_000

Ref = tuple[str, str, int, int, str, str, float]  # a row of `refs`


class Ward:
    """Applies facts inside the log's transaction. `forget` after a rollback."""

    def __init__(self, log: Log, units: Collection[str], keep_identifiers: bool) -> None:
        self._log = log
        self._units = {unit.lower() for unit in units}
        self._keep_identifiers = keep_identifiers
        self._stays = StayTable(log.connection)
        self._patients = Patients(log.connection)
        self._known: dict[Person, int] = {}

    def forget(self) -> None:
        """Reads everything from the log again."""
        self._patients.forget()
        self._known.clear()
        self._stays.forget()

    def apply(self, fact: Fact) -> None:
        """Adds the events of a fact to the log."""
        if isinstance(fact, Observed):
            self._observe(fact)
        elif isinstance(fact, Moved):
            self._move(fact)
        elif isinstance(fact, Unusable):
            self.reject(
                fact.reason, self._patients.find(fact.person.keys[0]) if fact.person else None
            )
        elif isinstance(fact, Replaced):
            self._replace(fact)
        else:
            self._merge(fact)

    def pass_on(self, message: Message, data: bytes) -> int:
        """Adds a message in the stream's own form; `data` is its JSON."""
        read = self._log.connection.execute
        self._patients.take(message.pat_id)
        if isinstance(message, Withdrawal):
            read("DELETE FROM refs WHERE pat_id = ? AND seq = ?", (message.pat_id, message.of))
        seq = self._log.add_event(data)
        if isinstance(message, Reading):
            self._remember(seq, "", moment_of(message), message)
        return seq

    def reject(self, reason: str, pat_id: int | None = None) -> None:
        """Adds an event for the table `rejected`. It says where the whole message is."""
        received = self._log.next_received()
        event = {"type": "unusable", "pat_id": pat_id, "received": received, "reason": reason}
        self._log.add_event(msgspec.json.encode(event))

    # People

    def _number(self, person: Person, at: Moment) -> int:
        """The number of a patient, a new one for an unknown patient."""
        number = self._known.get(person)
        if number is not None:
            return number
        numbers = {key: self._patients.find(key) for key in person.keys}
        found = next((number for number in numbers.values() if number is not None), None)
        if found is None:
            found = self._patients.new()
        for key, other in numbers.items():
            if other is None:
                self._patients.name(key, found)
            elif other != found:
                self._join(other, found, at)
        if self._patients.learn(found, person):
            self._known.clear()  # another spelling may be remembered
            self._tell(found)
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        self._known[person] = found
        return found

    def _tell(self, number: int) -> None:
        """Tells the stream of an open stay what has become known of its patient."""
        stay = self._stays.latest(number)
        if stay is None or stay.until is not None:
            return
        age = self._patients.age(number, stay.admission)
        if age != stay.age or self._keep_identifiers:
            stay = msgspec.structs.replace(stay, age=age)
            self._stays.put(stay)
            self._admission(stay)

    # Stays

    def _in_icu(self, place: Place | None) -> bool:
        return not self._units or (place is not None and place.unit.lower() in self._units)

    def _open(self, number: int, at: Moment, place: Place | None, visit: str, by: str) -> Stay:
        known = self._stays.get(number, at[:10])
        if known is not None:  # left and came back on one day: the same stay
            stay = msgspec.structs.replace(known, until=None)
        else:
            age = self._patients.age(number, at[:10])
            stay = Stay(number, at[:10], at, None, age, None, visit, by)
        return self._update(stay, place, visit)

    def _update(self, stay: Stay, place: Place | None, visit: str) -> Stay:
        """Stores a stay with its bed and visit, and tells the stream."""
        stay = msgspec.structs.replace(
            stay, place=place.text if place else stay.place, visit=visit or stay.visit
        )
        old = self._stays.get(stay.pat_id, stay.admission)
        if stay != old:
            self._stays.put(stay)
            if old is None or (old.until, old.place) != (stay.until, stay.place):
                self._admission(stay)
        return stay

    def _admission(self, stay: Stay) -> None:
        identifier = self._patients.identifier(stay.pat_id) if self._keep_identifiers else None
        when = clock(stay.since)
        self._send(Admission(stay.pat_id, stay.age, stay.admission, *when, stay.place, identifier))

    def _close(self, stay: Stay, at: Moment) -> None:
        if at[:10] < stay.admission:
            self.reject("a discharge before the admission", stay.pat_id)
            return
        self._stays.put(msgspec.structs.replace(stay, until=at))
        self._send(Discharge(stay.pat_id, stay.age, stay.admission, at[:10], *clock(at)))

    def _cancel(self, stay: Stay) -> None:
        """The stay never was: its readings are withdrawn, and it ends where it began."""
        for row in self._refs("pat_id = ? AND admission = ?", stay.pat_id, stay.admission):
            self._withdraw(row)
        self._close(stay, stay.since)

    def _move(self, fact: Moved) -> None:
        number = self._number(fact.person, fact.at)
        stay = self._stays.of_visit(number, fact.visit)
        is_open = stay is not None and stay.until is None
        inside = self._in_icu(fact.place)
        if fact.move in ("admit", "transfer"):
            self._arrive(fact, number, inside)
        elif stay is None:
            if fact.move not in ("update", "cancel_transfer"):
                self.reject(f"{fact.move.replace('_', ' ')} of a patient who has no stay", number)
        elif fact.move == "discharge":
            if is_open:
                self._close(stay, fact.at)
        elif fact.move == "update":
            if is_open and (inside or fact.place is None):
                self._update(stay, fact.place, fact.visit)
        elif fact.move == "cancel_admit":
            self._cancel(stay)
        elif fact.move == "cancel_transfer" and not inside:
            if is_open and stay.opened_by == "transfer":
                self._cancel(stay)
        else:  # cancel_discharge, or cancel_transfer back into the ICU
            self._update(msgspec.structs.replace(stay, until=None), fact.place, fact.visit)

    def _arrive(self, fact: Moved, number: int, inside: bool) -> None:
        """An admission or a transfer."""
        stay = self._stays.latest(number)
        is_open = stay is not None and stay.until is None
        if not inside:
            if stay is not None and is_open and fact.place is not None and fact.move == "transfer":
                self._close(stay, fact.at)
            return
        if stay is not None and is_open:
            other = bool(fact.visit and stay.visit and fact.visit != stay.visit)
            if not other or fact.at[:10] <= stay.admission:
                self._update(stay, fact.place, fact.visit)
                return
            self._close(stay, fact.at)  # its discharge was never sent
        self._open(number, fact.at, fact.place, fact.visit, fact.move)

    # Readings

    def _observe(self, fact: Observed) -> None:
        number = self._number(fact.person, fact.at)
        rows = self._earlier(fact, number)
        if fact.value is None:
            if not rows:
                self.reject(f"{fact.parameter}: a withdrawal of an unknown value", number)
            for row in rows:
                self._withdraw(row)
            return
        for row in rows:
            if row[1] == fact.at and row[3] == number and row[5:] == (fact.parameter, fact.value):
                return  # the same again, in another message
        for row in rows:
            self._withdraw(row)
        stay = self._stay_at(number, fact)
        if stay is None:
            self.reject(f"{fact.parameter}: the patient is not in the ICU", number)
        else:
            self._read(stay, fact.ref, fact.at, fact.parameter, fact.value)

    def _earlier(self, fact: Observed, number: int) -> list[Ref]:
        """The values that this one replaces, or withdraws."""
        same = self._refs("ref = ? AND at = ?", fact.ref, fact.at)
        if fact.ref.startswith("#") and fact.value is not None and not fact.corrects:
            return []  # without a filler number nothing shows that it is the same observation
        if fact.corrects:
            return same or self._refs("ref = ? ORDER BY seq DESC LIMIT 1", fact.ref)
        return [row for row in same if row[3] == number]

    def _replace(self, fact: Replaced) -> None:
        # Code points end at 10FFFF: all that begins with the prefix.
        rows = self._refs("ref >= ? AND ref < ?", fact.prefix, fact.prefix + "\U0010ffff")
        for row in rows:
            if row[0] not in fact.kept:
                self._withdraw(row)

    def _stay_at(self, number: int, fact: Observed) -> Stay | None:
        """The stay that a reading belongs to; opens one for a patient first seen in the ICU."""
        stay = self._stays.at(number, fact.at)
        if stay is not None:
            return stay
        latest = self._stays.latest(number)
        if latest is not None and (latest.until is None or fact.at < latest.until):
            return latest  # before its admission: the tool rejects it
        if self._in_icu(fact.place):
            return self._open(number, fact.at, fact.place, "", "observation")
        return None

    def _read(self, stay: Stay, ref: str, at: Moment, parameter: str, value: float) -> None:
        until = stay.until[:10] if stay.until else None
        day, hour, minute, second = clock(at)
        message = Reading(
            *(stay.pat_id, stay.age, stay.admission, until, day, hour, parameter, value),
            *(minute, second),
        )
        self._remember(self._send(message), ref, at, message)

    def _remember(self, seq: int, ref: str, at: Moment, message: Reading) -> None:
        self._log.connection.execute(
            "INSERT INTO refs VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                *(ref, at, seq, message.pat_id, message.date_admission),
                *(message.parameter, message.value),
            ),
        )

    def _withdraw(self, row: Ref) -> None:
        ref, at, seq, number, admission = row[:5]
        self._log.connection.execute(
            "DELETE FROM refs WHERE ref = ? AND at = ? AND seq = ?", (ref, at, seq)
        )
        self._send(Withdrawal(number, admission, seq))

    def _refs(self, where: str, *values: object) -> list[Ref]:
        order = "" if "ORDER" in where else " ORDER BY seq"
        return self._log.connection.execute(
            f"SELECT * FROM refs WHERE {where}{order}", values
        ).fetchall()

    def _send(self, message: Message) -> int:
        return self._log.add_event(msgspec.json.encode(message))

    # Merges

    def _merge(self, fact: Merged) -> None:
        survivor = self._number(fact.person, fact.at)
        prior = self._patients.find(fact.prior.keys[0])
        if prior is None:
            self._patients.name(fact.prior.keys[0], survivor)
        elif prior != survivor:
            self._join(prior, survivor, fact.at)

    def _join(self, prior: int, survivor: int, at: Moment) -> None:
        """Withdraws all readings of one patient, and sends them again as the other's."""
        rows = self._refs("pat_id = ?", prior)
        stays = self._stays.of(prior)
        for row in rows:
            self._withdraw(row)
        for stay in stays:
            if stay.until is None:
                self._close(stay, max(at, stay.since))
            self._adopt(stay, survivor)
        for ref, moment, _, _, admission, parameter, value in rows:
            own = self._stays.at(survivor, moment) or self._stays.get(survivor, admission)
            if own is None:
                own = self._open(survivor, moment, None, "", "merge")
            self._read(own, ref, moment, parameter, value)
        self._patients.join(prior, survivor)
        self._known.clear()
        self._tell(survivor)

    def _adopt(self, stay: Stay, survivor: int) -> None:
        """Gives the survivor a stay where he has none at that time."""
        known = self._stays.get(survivor, stay.admission)
        if known is None and self._stays.at(survivor, stay.since) is None:
            own = msgspec.structs.replace(stay, pat_id=survivor)
            self._stays.put(own)
            self._admission(own)
            if own.until is not None:
                self._close(own, own.until)


def clock(at: Moment) -> tuple[str, int, int, int]:
    """Day, hour, minute and second of a moment."""
    return at[:10], int(at[11:13]), int(at[14:16]), int(at[17:19])


def moment_of(message: Reading) -> Moment:
    """The moment of a reading."""
    return f"{message.day} {message.hour:02}:{message.minute:02}:{message.second:02}"
