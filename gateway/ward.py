"""Converts the facts from all receivers to events of the stream. All state is in the log."""

from collections.abc import Callable, Collection

import msgspec

from gateway.beds import Beds
from gateway.facts import Fact, Merged, Moved, Observed, Person, Replaced, Unusable
from gateway.log import Log
from gateway.patients import Patients
from gateway.pending import Pending
from gateway.readings import Readings
from gateway.refs import Entry
from gateway.stays import Stay
from gateway.times import AHEAD, BEHIND, Moment, moment_of
from wire.messages import Message, Reading, Withdrawal

REMEMBERED = 10_000


class Ward:
    """Applies facts within the log's transaction. Call `end_message` after each message.

    latest: returns the latest time that a message may have. earliest: returns the earliest time at
    which a reading may begin a stay.
    """

    def __init__(
        self,
        log: Log,
        units: Collection[str],
        keep_identifiers: bool,
        latest: Callable[[], Moment],
        earliest: Callable[[], Moment] = lambda: "",
    ) -> None:
        self._log = log
        self._latest = latest
        self._earliest = earliest
        self._patients = Patients(log.connection)
        self._beds = Beds(log, self._patients, units, keep_identifiers)
        self._readings = Readings(log, self._beds)
        self._pending = Pending(log, self._beds, self._readings)
        self._known: dict[Person, int] = {}

    def forget(self) -> None:
        """Drops all cached state, after a rollback."""
        self._patients.forget()
        self._known.clear()
        self._beds.stays.forget()
        self._readings.refs.forget()
        self._pending.forget()

    def end_message(self) -> None:
        """Ends the rows of the current message."""
        self._readings.refs.end_message()

    def flush(self) -> None:
        """Writes all rows. Call this before the transaction ends."""
        self._readings.refs.end_message()
        self._readings.refs.flush()

    @property
    def pending(self) -> bool:
        """Whether readings of earlier messages still have to be moved; `step` does so."""
        return bool(self._pending.tasks)

    def step(self) -> None:
        """Moves some of the readings that still have to be moved."""
        self._pending.step()

    def give_up(self) -> None:
        """Rejects the rest of the first pending task. Called after `step` has failed."""
        task = self._pending.drop_first()
        reason = "the gateway failed to move all readings of a merge or a cancelled admission"
        self._log.reject(reason, task.pat_id, task.received)

    def apply(self, fact: Fact) -> None:
        """Adds the events of a fact to the log."""
        if isinstance(fact, Observed):
            pat_id = self._pat_id_of(fact.person, fact.at)
            if self._pending.tasks:
                self._pending.settle_for(fact)
            if fact.at > self._latest():
                fact = self._without_readings(fact, pat_id, AHEAD)
            elif not self._beds.stays.of(pat_id) and fact.at < self._earliest():
                fact = self._without_readings(fact, pat_id, BEHIND)
            if fact.values:
                self._readings.observe(fact, pat_id)
        elif isinstance(fact, Moved):
            self._move(fact)
        elif isinstance(fact, Unusable):
            known = self._patients.find(fact.person.keys[0]) if fact.person else None
            self._log.reject(fact.reason, known)
        elif isinstance(fact, Replaced):
            self._pending.settle(fact.source)
            self._readings.replace(fact)
        else:
            self._merge(fact)

    def _without_readings(self, fact: Observed, pat_id: int, reason: str) -> Observed:
        """Rejects the readings of a fact whose time is wrong; keeps the withdrawals."""
        for value in fact.values:
            if value.value is not None:
                self._log.reject(f"{value.parameter}: {reason}", pat_id)
        withdrawn = [value for value in fact.values if value.value is None]
        return msgspec.structs.replace(fact, values=withdrawn)

    def pass_on(self, message: Message, data: bytes) -> None:
        """Adds a message in the stream's own format. data: its JSON."""
        self._patients.take(message.pat_id)
        refs = self._readings.refs
        if isinstance(message, Withdrawal):
            refs.drop_event(message.pat_id, message.of, self._log.first_with(message.of))
        seq = self._log.add_event(data)
        if isinstance(message, Reading):
            entry = Entry("", seq, message.parameter, message.value)
            refs.add(("", moment_of(message), message.pat_id, message.date_admission), [entry])

    def _pat_id_of(self, person: Person, at: Moment) -> int:
        """The pat_id of a person. An unknown patient gets a new one. If the identifiers belong
        to several patients, these are merged."""
        pat_id = self._known.get(person)
        if pat_id is not None:
            return pat_id
        pat_ids = {key: self._patients.find(key) for key in person.keys}
        found = next((pat_id for pat_id in pat_ids.values() if pat_id is not None), None)
        if found is None:
            found = self._patients.new()
        for key, other in pat_ids.items():
            if other is None:
                self._patients.name(key, found)
            elif other != found:
                self._join(other, found, at)
        if self._patients.learn(found, person):
            self._known.clear()  # it may contain the patient with other keys
            self._beds.person_changed(found)
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        self._known[person] = found
        return found

    def _move(self, fact: Moved) -> None:
        pat_id = self._pat_id_of(fact.person, fact.at)
        if fact.move in ("admit", "transfer", "discharge") and fact.at > self._latest():
            self._log.reject(f"{fact.move}: {AHEAD}", pat_id)
            return
        stay = self._beds.stays.of_visit(pat_id, fact.visit)
        is_open = stay is not None and stay.until is None
        inside = self._beds.in_icu(fact.place)
        if fact.move in ("admit", "transfer"):
            self._arrive(fact, pat_id, inside)
        elif stay is None:
            if fact.move not in ("update", "cancel_transfer"):
                reason = f"{fact.move.replace('_', ' ')} of a patient who has no stay"
                self._log.reject(reason, pat_id)
        elif fact.move == "discharge":
            if is_open:
                self._beds.close(stay, fact.at)
        elif fact.move == "update":
            if is_open and (inside or fact.place is None):
                self._beds.update(stay, fact.place, fact.visit)
        elif fact.move == "cancel_admit":
            self._cancel(stay)
        elif fact.move == "cancel_transfer" and not inside:
            if is_open and stay.opened_by == "transfer":
                self._cancel(stay)
        else:  # cancel_discharge, or cancel_transfer back into the ICU
            self._beds.reopen(stay, fact.place, fact.visit)

    def _arrive(self, fact: Moved, pat_id: int, inside: bool) -> None:
        """Applies an admission or a transfer."""
        stay = self._beds.stays.latest(pat_id)
        is_open = stay is not None and stay.until is None
        if not inside:
            if stay is not None and is_open and fact.place is not None and fact.move == "transfer":
                self._beds.close(stay, fact.at)
            return
        if self._is_past(fact, pat_id):
            return
        if stay is not None and is_open:
            other = bool(fact.visit and stay.visit and fact.visit != stay.visit)
            if not other or fact.at[:10] == stay.admission:
                self._beds.update(stay, fact.place, fact.visit)
                return
            self._beds.close(stay, fact.at)  # its discharge has not arrived
        self._beds.open(pat_id, fact.at, fact.place, fact.visit, fact.move)

    def _is_past(self, fact: Moved, pat_id: int) -> bool:
        """Whether an admission or a transfer belongs to an earlier visit than the current stay, or
        to a stay that has ended. It changes nothing, because it must neither give the current stay
        an earlier bed nor begin a stay that nothing ends. Rejects it, unless its visit is known.
        """
        day, visit = fact.at[:10], fact.visit
        stays = self._beds.stays.of(pat_id)
        for stay in stays:
            other = bool(visit and stay.visit and visit != stay.visit)
            if stay.until is None:
                past = other and day < stay.admission
            else:
                same = visit == stay.visit if visit and stay.visit else fact.move == "transfer"
                past = same and stay.admission < day < stay.until[:10]
            if past:
                if not any(visit and stay.visit == visit for stay in stays):
                    self._log.reject(f"{fact.move}: before the patient's current stay", pat_id)
                return True
        return False

    def _cancel(self, stay: Stay) -> None:
        """Cancels a stay: withdraws its readings, and ends it at the time it began."""
        self._pending.cancel(stay)
        self._beds.close(stay, stay.since)

    def _merge(self, fact: Merged) -> None:
        survivor = self._pat_id_of(fact.person, fact.at)
        prior = self._patients.find(fact.prior.keys[0])
        if prior is None:
            self._patients.name(fact.prior.keys[0], survivor)
        elif prior != survivor:
            self._join(prior, survivor, fact.at)

    def _join(self, prior: int, survivor: int, at: Moment) -> None:
        """Gives the stays of `prior` to `survivor`, and starts to move the readings. Both are
        pat_ids. A clock that is ahead does not close a stay in the future."""
        stays = self._beds.stays
        at = min(at, self._latest())
        for stay in stays.of(prior):
            if stay.until is None:
                self._beds.close(stay, max(at, stay.since))
            self._beds.adopt(stay, survivor)
        self._pending.merge(prior, survivor)
        self._patients.join(prior, survivor)
        self._known.clear()
        self._beds.person_changed(survivor)
