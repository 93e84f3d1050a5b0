"""Opens and closes stays in the ICU, and sends admissions and discharges to the stream.

A stay is the time in beds of `ICU_UNITS`; without that setting, all beds count.
"""

from collections.abc import Collection

import msgspec

from gateway.facts import Place
from gateway.log import Log
from gateway.patients import Patients
from gateway.stays import Stay, StayTable
from gateway.times import Moment, clock
from wire.messages import Admission, Discharge


class Beds:
    """Opens, changes and closes stays. keep_identifiers: whether the stream contains the patients'
    names and identifiers."""

    def __init__(
        self, log: Log, patients: Patients, units: Collection[str], keep_identifiers: bool
    ) -> None:
        self._log = log
        self._patients = patients
        self._units = {unit.lower() for unit in units}
        self._keep_identifiers = keep_identifiers
        self.stays = StayTable(log.connection)

    def in_icu(self, place: Place | None) -> bool:
        return not self._units or (place is not None and place.unit.lower() in self._units)

    def open(
        self, pat_id: int, at: Moment, place: Place | None, visit: str = "", by: str = "merge"
    ) -> Stay:
        """Opens a stay, or continues the stay that began on the same day.

        by: the cause: a move, `merge` or `observation`.
        """
        known = self.stays.get(pat_id, at[:10])
        if known is not None:
            stay = msgspec.structs.replace(known, until=None)
        else:
            age = self._patients.age(pat_id, at[:10])
            stay = Stay(pat_id, at[:10], at, None, age, None, visit, by)
        return self.update(stay, place, visit)

    def update(self, stay: Stay, place: Place | None, visit: str) -> Stay:
        """Stores a stay with its bed and visit. Sends an admission if the stay is new, or if its
        bed or its end has changed.
        """
        stay = msgspec.structs.replace(
            stay, place=place.text if place else stay.place, visit=visit or stay.visit
        )
        old = self.stays.get(stay.pat_id, stay.admission)
        if stay != old:
            self.stays.put(stay)
            if old is None or (old.until, old.place) != (stay.until, stay.place):
                self._announce(stay)
        return stay

    def reopen(self, stay: Stay, place: Place | None, visit: str) -> None:
        """Reopens a stay if it is closed, and stores its bed and visit."""
        self.update(msgspec.structs.replace(stay, until=None), place, visit)

    def close(self, stay: Stay, at: Moment) -> None:
        """Closes a stay and sends a discharge. Rejects a discharge before the day of admission."""
        if at[:10] < stay.admission:
            self._log.reject("a discharge before the admission", stay.pat_id)
            return
        self.stays.put(msgspec.structs.replace(stay, until=at))
        self._log.send(Discharge(stay.pat_id, stay.age, stay.admission, at[:10], *clock(at)))

    def adopt(self, stay: Stay, survivor: int) -> None:
        """Opens the same stay for `survivor`, the pat_id that remains after a merge. Does
        nothing if that patient has a stay that began on the same day, or that includes the time
        when this stay began."""
        known = self.stays.get(survivor, stay.admission)
        if known is None and self.stays.at(survivor, stay.since) is None:
            own = msgspec.structs.replace(stay, pat_id=survivor)
            self.stays.put(own)
            self._announce(own)
            if own.until is not None:
                self.close(own, own.until)

    def person_changed(self, pat_id: int) -> None:
        """Sends the admission of the patient's open stay again, if the age has changed or the
        stream contains names."""
        stay = self.stays.latest(pat_id)
        if stay is None or stay.until is not None:
            return
        age = self._patients.age(pat_id, stay.admission)
        if age != stay.age or self._keep_identifiers:
            stay = msgspec.structs.replace(stay, age=age)
            self.stays.put(stay)
            self._announce(stay)

    def _announce(self, stay: Stay) -> None:
        identifier = self._patients.identifier(stay.pat_id) if self._keep_identifiers else None
        when = clock(stay.since)
        self._log.send(
            Admission(stay.pat_id, stay.age, stay.admission, *when, stay.place, identifier)
        )
