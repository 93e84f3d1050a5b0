"""Table `refs` of the log: which events hold the values of a sender's observation.

A row has the values of one message that share source and time. They are looked up when the
sender corrects or withdraws one, and when two patients are merged.
"""

import sqlite3

import msgspec

from gateway.times import Moment


class Ref(msgspec.Struct, frozen=True, gc=False):
    """One reading that is not withdrawn. seq: its event. row: the key of its row."""

    source: str
    name: str
    at: Moment
    seq: int
    pat_id: int
    admission: str
    parameter: str
    value: float
    row: int


class _Entry(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What a row holds of each reading."""

    name: str
    seq: int
    parameter: str
    value: float


Group = tuple[str, Moment, int, str]  # source, time, pat_id, admission

_entries = msgspec.json.Decoder(list[_Entry])
_COLUMNS = "seq, source, at, pat_id, admission, entries"


class Refs:
    """The readings of each source. Those of the present message are written by `flush`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute
        self._added: dict[Group, list[_Entry]] = {}
        self._loaded: dict[tuple[str, Moment], dict[str, list[Ref]]] = {}

    def forget(self) -> None:
        """Drops what is not written, after a rollback."""
        self._added.clear()
        self._loaded.clear()

    def flush(self) -> None:
        """Writes what was added."""
        for (source, at, pat_id, admission), entries in self._added.items():
            row = (entries[0].seq, source, at, pat_id, admission, msgspec.json.encode(entries))
            self._execute("INSERT INTO refs VALUES (?, ?, ?, ?, ?, ?)", row)
        self.forget()

    def add(self, group: Group, name: str, seq: int, parameter: str, value: float) -> None:
        """Remembers the reading with number `seq`."""
        entries = self._added.get(group)
        if entries is None:
            entries = self._added[group] = []
        entries.append(_Entry(name, seq, parameter, value))
        source, at, pat_id, admission = group
        loaded = self._loaded.get((source, at))
        if loaded is not None:
            ref = Ref(source, name, at, seq, pat_id, admission, parameter, value, entries[0].seq)
            loaded.setdefault(name, []).append(ref)

    def at(self, source: str, at: Moment, name: str) -> list[Ref]:
        """The readings of this name and time, in the order of their arrival."""
        loaded = self._loaded.get((source, at))
        if loaded is None:
            self.flush()
            loaded = self._loaded[source, at] = {}
            for ref in self._read("source = ? AND at = ?", source, at):
                loaded.setdefault(ref.name, []).append(ref)
        return loaded.get(name, [])

    def latest(self, source: str, name: str) -> Ref | None:
        """The newest reading of this name, of any time."""
        self.flush()
        quoted = msgspec.json.encode(name).decode()
        rows = self._execute(
            f"SELECT {_COLUMNS} FROM refs WHERE source = ? AND instr(entries, ?) ORDER BY seq DESC",
            (source, quoted),
        )
        found = (ref for row in rows for ref in reversed(_refs(row)) if ref.name == name)
        return next(found, None)

    def of_source(self, source: str) -> list[Ref]:
        self.flush()
        return self._read("source = ?", source)

    def of_patient(self, pat_id: int) -> list[Ref]:
        self.flush()
        return self._read("pat_id = ?", pat_id)

    def drop_event(self, pat_id: int, seq: int, first: int) -> None:
        """Forgets reading `seq` of a message whose events begin with `first`."""
        self.flush()
        for ref in self._read("pat_id = ? AND seq BETWEEN ? AND ?", pat_id, first, seq):
            if ref.seq == seq:
                self.drop(ref)

    def drop(self, ref: Ref) -> None:
        """Forgets a reading that is withdrawn."""
        self.flush()
        ((text,),) = self._execute("SELECT entries FROM refs WHERE seq = ?", (ref.row,))
        left = [entry for entry in _entries.decode(text) if entry.seq != ref.seq]
        if left:
            self._execute(
                "UPDATE refs SET entries = ? WHERE seq = ?", (msgspec.json.encode(left), ref.row)
            )
        else:
            self._execute("DELETE FROM refs WHERE seq = ?", (ref.row,))

    def _read(self, where: str, *values: object) -> list[Ref]:
        rows = self._execute(f"SELECT {_COLUMNS} FROM refs WHERE {where} ORDER BY seq", values)
        return [ref for row in rows.fetchall() for ref in _refs(row)]


def _refs(row: tuple[int, str, Moment, int, str, bytes]) -> list[Ref]:
    key, source, at, pat_id, admission, text = row
    return [
        Ref(source, e.name, at, e.seq, pat_id, admission, e.parameter, e.value, key)
        for e in _entries.decode(text)
    ]
