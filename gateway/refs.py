"""Table `refs` of the log: for each value of a sender's observations, the number of its event.

A row has up to IN_ROW values of one message, all with the same source, time and stay. Corrections,
withdrawals and merges use the rows.
"""

import sqlite3
from bisect import insort
from collections import Counter
from itertools import islice

import msgspec

from gateway.times import Moment


class Ref(msgspec.Struct, frozen=True, gc=False):
    """A reading that is not withdrawn. seq: the number of its event. row: the key of its row."""

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
    """The part of a row that is about one reading."""

    name: str
    seq: int
    parameter: str
    value: float


class Row(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A row of the table. seq: the number of the event of its first reading."""

    seq: int
    source: str
    at: Moment
    pat_id: int
    admission: str
    entries: list[Entry]


Key = tuple[str, Moment]  # source, time
Group = tuple[str, Moment, int, str]  # source, time, pat_id, admission

# Maximum number of readings in a row, because each withdrawal writes a whole row.
IN_ROW = 50
# Maximum number of queries for the latest readings of one source in one message; then the whole
# source is loaded. Each query reads all rows of the source, so thousands would stop the gateway.
ASKED = 20
# Maximum number of rows that are read at once, because a patient's history may be long.
ROWS_AT_ONCE = 100
_entries = msgspec.json.Decoder(list[Entry])
_COLUMNS = "seq, source, at, pat_id, admission, entries"


class _Loaded:
    """The readings of a source and a time, by name, including those that the current message adds
    after they are loaded."""

    def __init__(self) -> None:
        self._by_name: dict[str, list[Ref]] = {}
        self._added: list[tuple[Group, list[Entry], int, int]] = []

    def add(self, group: Group, entries: list[Entry], begin: int) -> None:
        """Adds the entries from index `begin` on."""
        self._added.append((group, entries, begin, len(entries)))

    def by_name(self) -> dict[str, list[Ref]]:
        for (source, at, pat_id, admission), entries, begin, end in self._added:
            for index in range(begin, end):
                row = entries[index // IN_ROW * IN_ROW].seq
                self.load(Row(row, source, at, pat_id, admission, entries[index : index + 1]))
        self._added.clear()
        return self._by_name

    def load(self, row: Row) -> None:
        for ref in _refs(row):
            self._by_name.setdefault(ref.name, []).append(ref)

    def drop(self, ref: Ref) -> None:
        refs = self.by_name()
        refs[ref.name] = [other for other in refs[ref.name] if other.seq != ref.seq]


class Refs:
    """Stores and finds the readings of each source. Call `end_message` after each message."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute
        self._execute_many = connection.executemany
        self._added: dict[Group, list[Entry]] = {}  # from the current message
        self._added_keys: set[Key] = set()
        self._rows: list[tuple[object, ...]] = []  # from earlier messages of the transaction
        self._row_keys: set[Key] = set()
        self._loaded: dict[Key, _Loaded] = {}
        self._asked: Counter[str] = Counter()  # queries for the latest reading, by source
        self._sources: dict[str, dict[str, list[Ref]]] = {}  # by source and name, in order of time

    def forget(self) -> None:
        """Drops the rows that are not written yet. Call this after a rollback."""
        self._added.clear()
        self._added_keys.clear()
        self._rows.clear()
        self._row_keys.clear()
        self._end_cache()

    def end_message(self) -> None:
        """Ends the rows of the current message."""
        self._end_rows()
        self._end_cache()

    def _end_cache(self) -> None:
        self._loaded.clear()
        self._asked.clear()
        self._sources.clear()

    def _end_rows(self) -> None:
        for (source, at, pat_id, admission), entries in self._added.items():
            for begin in range(0, len(entries), IN_ROW):
                part = entries[begin : begin + IN_ROW]
                row = (part[0].seq, source, at, pat_id, admission, msgspec.json.encode(part))
                self._rows.append(row)
        self._added.clear()
        self._row_keys |= self._added_keys
        self._added_keys.clear()

    def flush(self) -> None:
        """Writes the rows of the messages that have ended."""
        if self._rows:
            # `executemany` costs less than one statement per row.
            self._execute_many("INSERT INTO refs VALUES (?, ?, ?, ?, ?, ?)", self._rows)
            self._rows.clear()
            self._row_keys.clear()

    def add(self, group: Group, entries: list[Entry]) -> None:
        """Adds new readings."""
        added = self._added.setdefault(group, [])
        begin = len(added)
        added += entries
        key = group[:2]
        self._added_keys.add(key)
        if (loaded := self._loaded.get(key)) is not None:
            loaded.add(group, added, begin)
        if (names := self._sources.get(group[0])) is not None:
            for index in range(begin, len(added)):
                row = Row(added[index // IN_ROW * IN_ROW].seq, *group, added[index : index + 1])
                self._keep(names, row)

    @staticmethod
    def _keep(names: dict[str, list[Ref]], row: Row) -> None:
        for ref in _refs(row):
            insort(names.setdefault(ref.name, []), ref, key=lambda each: (each.at, each.seq))

    def at(self, source: str, at: Moment) -> dict[str, list[Ref]]:
        """The readings of one time, by name, in the order of arrival."""
        loaded = self._loaded.get((source, at))
        if loaded is None:
            loaded = _Loaded()
            for row in self.rows(source, at):
                loaded.load(row)
            self._loaded[source, at] = loaded
        return loaded.by_name()

    def latest(self, source: str, name: str, pat_id: int | None = None) -> list[Ref]:
        """The reading of this name with the latest time; empty if there is none. pat_id: only
        readings of this patient."""
        self._asked[source] += 1
        names = self._sources.get(source)
        if names is None and self._asked[source] > ASKED:
            names = self._sources[source] = {}
            for row in self.rows(source):
                self._keep(names, row)
        if names is not None:
            known = (r for r in reversed(names.get(name, [])) if pat_id in (None, r.pat_id))
            return list(islice(known, 1))
        self._write_all()
        quoted = msgspec.json.encode(name).decode()
        rows = self._execute(
            f"SELECT {_COLUMNS} FROM refs WHERE source = ? AND instr(entries, ?) "
            "AND (? IS NULL OR pat_id = ?) ORDER BY at DESC, seq DESC",
            (source, quoted, pat_id, pat_id),
        )
        found = (ref for row in rows for ref in reversed(_refs(_row(row))) if ref.name == name)
        return list(islice(found, 1))

    def of_source(self, source: str) -> list[Ref]:
        return [ref for row in self.rows(source) for ref in _refs(row)]

    def rows(self, source: str, at: Moment | None = None) -> list[Row]:
        """The rows of a source. at: only those of this time."""
        if at is None or (source, at) in self._added_keys:
            self._write_all()
        elif (source, at) in self._row_keys:
            self.flush()
        if at is None:
            return self._read("source = ?", source)
        return self._read("source = ? AND at = ?", source, at)

    def of_patient(self, pat_id: int, admission: str | None, after: int, upto: int) -> list[Row]:
        """The patient's rows after event `after`, up to event `upto`; at most ROWS_AT_ONCE rows.
        admission: only those of this stay."""
        self._write_all()
        return self._read(
            "pat_id = ? AND seq > ? AND seq <= ? AND (? IS NULL OR admission = ?)",
            *(pat_id, after, upto, admission, admission),
            most=ROWS_AT_ONCE,
        )

    def drop_event(self, pat_id: int, seq: int, first: int) -> None:
        """Removes the reading of event `seq`. first: the first event of its message."""
        self._write_all()
        for row in self._read("pat_id = ? AND seq BETWEEN ? AND ?", pat_id, first, seq):
            for ref in _refs(row):
                if ref.seq == seq:
                    self.drop(ref)

    def drop(self, ref: Ref) -> None:
        """Removes a withdrawn reading."""
        self._write_all()
        if (loaded := self._loaded.get((ref.source, ref.at))) is not None:
            loaded.drop(ref)
        if (names := self._sources.get(ref.source)) is not None:
            names[ref.name] = [other for other in names[ref.name] if other.seq != ref.seq]
        ((text,),) = self._execute("SELECT entries FROM refs WHERE seq = ?", (ref.row,))
        left = [entry for entry in _entries.decode(text) if entry.seq != ref.seq]
        if left:
            self._execute(
                "UPDATE refs SET entries = ? WHERE seq = ?", (msgspec.json.encode(left), ref.row)
            )
        else:
            self._execute("DELETE FROM refs WHERE seq = ?", (ref.row,))

    def remove(self, row: Row) -> None:
        """Removes a row whose readings are all withdrawn."""
        self._loaded.pop((row.source, row.at), None)
        self._sources.pop(row.source, None)
        self._execute("DELETE FROM refs WHERE seq = ?", (row.seq,))

    def _write_all(self) -> None:
        """Writes all rows, including those of the current message."""
        self._end_rows()
        self.flush()

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
