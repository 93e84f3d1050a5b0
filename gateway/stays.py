"""Table `stays` of the log: the stays in the ICU."""

import sqlite3

import msgspec

from gateway.times import Moment

REMEMBERED = 10_000


class Stay(msgspec.Struct, frozen=True, array_like=True):
    """A row of `stays`. admission: the day of `since`. until: None for an open stay. opened_by: a
    move, `merge` or `observation`.
    """

    pat_id: int
    admission: str
    since: Moment
    until: Moment | None
    age: float | None
    place: str | None
    visit: str
    opened_by: str


class StayTable:
    """Stores and finds the stays of each patient; caches those of recent patients."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._known: dict[int, list[Stay]] = {}

    def forget(self) -> None:
        self._known.clear()

    def of(self, pat_id: int) -> list[Stay]:
        """All stays of a patient, earliest first."""
        known = self._known.get(pat_id)
        if known is None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            rows = self._connection.execute(
                "SELECT * FROM stays WHERE pat_id = ? ORDER BY since", (pat_id,)
            )
            known = self._known[pat_id] = [Stay(*row) for row in rows]
        return known

    def get(self, pat_id: int, admission: str) -> Stay | None:
        """The stay that began on this day; None if there is none."""
        return next((stay for stay in self.of(pat_id) if stay.admission == admission), None)

    def latest(self, pat_id: int) -> Stay | None:
        stays = self.of(pat_id)
        return stays[-1] if stays else None

    def of_visit(self, pat_id: int, visit: str) -> Stay | None:
        """The latest stay of the visit or, if there is none, the latest stay without a visit; None
        if there is neither. Without `visit`, the patient's latest stay."""
        stays = [s for s in self.of(pat_id) if not visit or not s.visit or s.visit == visit]
        named = [stay for stay in stays if visit and stay.visit == visit]
        found = named or stays
        return found[-1] if found else None

    def at(self, pat_id: int, moment: Moment) -> Stay | None:
        """The stay at this time or, if there is none, a stay on the same day, because senders'
        clocks differ; None if there is neither."""
        stays = self.of(pat_id)
        for stay in reversed(stays):
            if stay.since <= moment and (stay.until is None or moment <= stay.until):
                return stay
        day = moment[:10]
        for stay in reversed(stays):
            if stay.admission <= day and (stay.until is None or day <= stay.until[:10]):
                return stay
        return None

    def put(self, stay: Stay) -> None:
        """Inserts or replaces a stay."""
        self._connection.execute(
            "INSERT OR REPLACE INTO stays VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            msgspec.structs.astuple(stay),
        )
        self._known.pop(stay.pat_id, None)
