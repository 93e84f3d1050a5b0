"""Tables `patients` and `people` of the log: the patients' identifiers and data."""

import sqlite3
from datetime import date
from typing import NamedTuple

from gateway.facts import Person
from gateway.people import printable

# The first pat_id for patients who are known by an identifier. It is above the pat_ids that JSON
# senders usually choose.
FIRST_NUMBER = 1_000_000_001
REMEMBERED = 10_000

Key = tuple[str, str]  # authority, id


class Known(NamedTuple):
    """The known data of a patient: date of birth and name."""

    born: str | None = None
    label: str | None = None


class Patients:
    """Stores the identifiers and the data of patients; caches the pat_ids of recent patients."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute
        self._pat_ids: dict[Key, int] = {}

    def forget(self) -> None:
        self._pat_ids.clear()

    def find(self, key: Key) -> int | None:
        """The pat_id of the patient with this identifier; None if it is unknown."""
        pat_id = self._pat_ids.get(key)
        if pat_id is None:
            row = self._execute(
                "SELECT pat_id FROM patients WHERE authority = ? AND id = ?", key
            ).fetchone()
            if row is None:
                return None
            if len(self._pat_ids) >= REMEMBERED:
                self._pat_ids.clear()
            pat_id = self._pat_ids[key] = int(row[0])
        return pat_id

    def new(self) -> int:
        """Returns a pat_id that no patient has, not even a merged one or one of a JSON sender."""
        newest = self._execute(
            "SELECT MAX(pat_id) FROM patients WHERE NOT (authority = '' AND id LIKE '=%')"
        ).fetchone()[0]
        pat_id = max(FIRST_NUMBER, int(newest or 0) + 1)
        while self._execute("SELECT 1 FROM patients WHERE pat_id = ?", (pat_id,)).fetchone():
            pat_id += 1
        return pat_id

    def name(self, key: Key, pat_id: int) -> None:
        """Adds an identifier to a patient."""
        self._execute("INSERT INTO patients VALUES (?, ?, ?)", (*key, pat_id))

    def take(self, pat_id: int) -> None:
        """Reserves a pat_id that a JSON sender uses, so that no identifier gets it."""
        self._execute("INSERT OR IGNORE INTO patients VALUES ('', ?, ?)", (f"={pat_id}", pat_id))

    def known(self, pat_id: int) -> Known:
        row = self._execute("SELECT born, label FROM people WHERE pat_id = ?", (pat_id,)).fetchone()
        return Known(*row) if row else Known()

    def learn(self, pat_id: int, person: Person) -> bool:
        """Stores the data of a person; returns False if nothing is new."""
        old = self.known(pat_id)
        new = Known(person.born or old.born, person.label or old.label)
        if new != old:
            self._execute("INSERT OR REPLACE INTO people VALUES (?, ?, ?)", (pat_id, *new))
        return new != old

    def join(self, prior: int, survivor: int) -> None:
        """Moves all identifiers of `prior` to `survivor`, and copies the data that it lacks."""
        self._execute("UPDATE patients SET pat_id = ? WHERE pat_id = ?", (survivor, prior))
        self.name(("", f"-{prior}"), prior)  # reserves the pat_id, because its stays remain
        self._pat_ids.clear()
        left, own = self.known(prior), self.known(survivor)
        self.learn(survivor, Person((), own.born or left.born, own.label or left.label))

    def identifier(self, pat_id: int) -> str | None:
        """The text that the pages show for a patient: name and identifier."""
        row = self._execute(
            "SELECT id FROM patients WHERE pat_id = ? ORDER BY authority, id", (pat_id,)
        ).fetchone()
        texts = (self.known(pat_id).label, row[0] if row else None)
        return printable(" · ".join(text for text in texts if text)) or None

    def age(self, pat_id: int, on: str) -> float | None:
        """The age in years on an ISO date; None if unknown or impossible."""
        born = self.known(pat_id).born
        if born is None:
            return None
        years = (date.fromisoformat(on) - date.fromisoformat(born)).days / 365.25
        return round(years, 1) if 0 <= years <= 150 else None
