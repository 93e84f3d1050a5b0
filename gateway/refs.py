"""Table `refs` of the log: the events with the values of a sender's observation.

A row has the values of one message with the same source and time. Corrections, withdrawals and
merges use them.
"""

import sqlite3
from itertools import islice

import msgspec

from gateway.times import Moment


class Ref(msgspec.Struct, frozen=True, gc=False):
    """A reading that is not withdrawn. seq: its event. row: the key of its row."""

    source: str
    name: str
    at: Moment
    seq: int
    pat_id: int
    admission: str
    parameter: str
    value: float
    row: int


class Entry(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The part of a row for one reading."""

    name: str
    seq: int
    parameter: str
    value: float


class Row(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A row of the table. seq: the event of its first reading."""

    seq: int
    source: str
    at: Moment
    pat_id: int
    admission: str
    entries: list[Entry]


Group = tuple[str, Moment, int, str]  # source, time, pat_id, admission

# Limits the size of a row, because each withdrawal rewrites its row.
IN_ROW = 50
# Limits the memory for a patient with a long history.
ROWS_AT_ONCE = 100
_entries = msgspec.json.Decoder(list[Entry])
_COLUMNS = "seq, source, at, pat_id, admission, entries"


class Refs:
    """The readings of each source. Call `end_message` after each message."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute
        self._added: dict[Group, list[Entry]] = {}
        self._loaded: dict[tuple[str, Moment], dict[str, list[Ref]]] = {}

    def forget(self) -> None:
        """Drops unwritten rows, after a rollback."""
        self._added.clear()
        self._loaded.clear()

    def end_message(self) -> None:
        """Writes the added rows."""
        self._flush()
        self._loaded.clear()

    def add(self, group: Group, entries: list[Entry]) -> None:
        """Adds new readings."""
        added = self._added.setdefault(group, [])
        source, at, pat_id, admission = group
        loaded = self._loaded.get((source, at))
        for entry in entries:
            added.append(entry)
            if loaded is not None:
                row = added[(len(added) - 1) // IN_ROW * IN_ROW].seq
                ref = Ref(
                    *(source, entry.name, at, entry.seq, pat_id, admission),
                    *(entry.parameter, entry.value, row),
                )
                loaded.setdefault(entry.name, []).append(ref)

    def at(self, source: str, at: Moment) -> dict[str, list[Ref]]:
        """The readings of a time by name, in order of arrival."""
        loaded = self._loaded.get((source, at))
        if loaded is None:
            loaded = self._loaded[source, at] = {}
            for row in self.rows(source, at):
                for ref in _refs(row):
                    loaded.setdefault(ref.name, []).append(ref)
        return loaded

    def latest(self, source: str, name: str) -> list[Ref]:
        """The reading of this name with the latest time; empty if there is none."""
        self._flush()
        quoted = msgspec.json.encode(name).decode()
        rows = self._execute(
            f"SELECT {_COLUMNS} FROM refs WHERE source = ? AND instr(entries, ?) "
            "ORDER BY at DESC, seq DESC",
            (source, quoted),
        )
        found = (ref for row in rows for ref in reversed(_refs(_row(row))) if ref.name == name)
        return list(islice(found, 1))

    def of_source(self, source: str) -> list[Ref]:
        return [ref for row in self.rows(source) for ref in _refs(row)]

    def rows(self, source: str, at: Moment | None = None) -> list[Row]:
        """The rows of a source: those of one time, or all."""
        self._flush()
        if at is None:
            return self._read("source = ?", source)
        return self._read("source = ? AND at = ?", source, at)

    def of_patient(self, pat_id: int, admission: str | None, after: int, upto: int) -> list[Row]:
        """The next rows of a patient after event `after`; admission: of one stay only."""
        self._flush()
        return self._read(
            "pat_id = ? AND seq > ? AND seq <= ? AND (? IS NULL OR admission = ?)",
            *(pat_id, after, upto, admission, admission),
            most=ROWS_AT_ONCE,
        )

    def drop_event(self, pat_id: int, seq: int, first: int) -> None:
        """Removes reading `seq` of the message whose events start with `first`."""
        self._flush()
        for row in self._read("pat_id = ? AND seq BETWEEN ? AND ?", pat_id, first, seq):
            for ref in _refs(row):
                if ref.seq == seq:
                    self.drop(ref)

    def drop(self, ref: Ref) -> None:
        """Removes a withdrawn reading."""
        self._flush()
        loaded = self._loaded.get((ref.source, ref.at))
        if loaded is not None:
            loaded[ref.name] = [other for other in loaded[ref.name] if other.seq != ref.seq]
        ((text,),) = self._execute("SELECT entries FROM refs WHERE seq = ?", (ref.row,))
        left = [entry for entry in _entries.decode(text) if entry.seq != ref.seq]
        if left:
            self._execute(
                "UPDATE refs SET entries = ? WHERE seq = ?", (msgspec.json.encode(left), ref.row)
            )
        else:
            self._execute("DELETE FROM refs WHERE seq = ?", (ref.row,))

    def remove(self, row: Row) -> None:
        """Removes a row, whose readings are all withdrawn."""
        self._loaded.pop((row.source, row.at), None)
        self._execute("DELETE FROM refs WHERE seq = ?", (row.seq,))

    def _flush(self) -> None:
        for (source, at, pat_id, admission), entries in self._added.items():
            for begin in range(0, len(entries), IN_ROW):
                part = entries[begin : begin + IN_ROW]
                row = (part[0].seq, source, at, pat_id, admission, msgspec.json.encode(part))
                self._execute("INSERT INTO refs VALUES (?, ?, ?, ?, ?, ?)", row)
        self._added.clear()

    def _read(self, where: str, *values: object, most: int = -1) -> list[Row]:
        rows = self._execute(
            f"SELECT {_COLUMNS} FROM refs WHERE {where} ORDER BY seq LIMIT ?", (*values, most)
        )
        return [_row(row) for row in rows.fetchall()]


def _row(row: tuple[int, str, Moment, int, str, bytes]) -> Row:
    return Row(*row[:5], _entries.decode(row[5]))


def _refs(row: Row) -> list[Ref]:
    return [
        Ref(
            *(row.source, e.name, row.at, e.seq, row.pat_id, row.admission, e.parameter, e.value),
            row.seq,
        )
        for e in row.entries
    ]
