"""The durable log: the raw messages, their events, and the data that corrections need.

A message is acknowledged when its transaction is on disk (`synchronous=FULL`). Events are numbered
without gaps. The name of the stream is created with the log. All events of one message are in one
row, one event per line, because one row per event would cost more time than everything else.
"""

import os
import secrets
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from wire.messages import Message, Unusable

SCHEMA = """
CREATE TABLE IF NOT EXISTS log (stream TEXT NOT NULL, pruned INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS received (
    id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, at REAL NOT NULL, sender TEXT NOT NULL,
    kind TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, raw BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS events (
    last INTEGER PRIMARY KEY, first INTEGER NOT NULL, data BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS patients (
    authority TEXT NOT NULL, id TEXT NOT NULL, pat_id INTEGER NOT NULL,
    PRIMARY KEY (authority, id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS patients_number ON patients (pat_id);
CREATE TABLE IF NOT EXISTS people (pat_id INTEGER PRIMARY KEY, born TEXT, label TEXT);
CREATE TABLE IF NOT EXISTS stays (
    pat_id INTEGER NOT NULL, admission TEXT NOT NULL, since TEXT NOT NULL, until TEXT,
    age REAL, place TEXT, visit TEXT NOT NULL, opened_by TEXT NOT NULL,
    PRIMARY KEY (pat_id, admission)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS refs (
    seq INTEGER PRIMARY KEY, source TEXT NOT NULL, at TEXT NOT NULL, pat_id INTEGER NOT NULL,
    admission TEXT NOT NULL, entries BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS refs_source ON refs (source, at);
CREATE INDEX IF NOT EXISTS refs_patient ON refs (pat_id);
CREATE TABLE IF NOT EXISTS pending (
    id INTEGER PRIMARY KEY, pat_id INTEGER NOT NULL, admission TEXT, upto INTEGER NOT NULL,
    survivor INTEGER, received INTEGER NOT NULL);
"""
VERSION = 2
_encoder = msgspec.json.Encoder()
# Number of messages that one transaction removes. It is small, so that no sender waits long, but
# larger than the number that the inbox adds in one transaction.
PRUNED_AT_ONCE = 500


class Received(NamedTuple):
    """A raw message that has no number yet."""

    digest: bytes
    at: float
    sender: str
    kind: str
    raw: bytes


class Numbers(NamedTuple):
    """The number `id` of a raw message, and the numbers of its events, from `first` to `last`; it
    has no events if last < first.
    """

    id: int
    first: int
    last: int


class Log:
    """The only writer of the file. Raises sqlite3.Error if the disk fails."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Only the owner may read the file, because it contains patients' names.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        self.path = path
        self.connection = connection = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, timeout=5
        )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA cache_size = -32000")
        connection.execute("PRAGMA wal_autocheckpoint = 2000")
        self._check_version()
        connection.executescript(SCHEMA)
        if connection.execute("SELECT 1 FROM log").fetchone() is None:
            connection.execute("INSERT INTO log (stream) VALUES (?)", (secrets.token_hex(4),))
        self.stream: str = connection.execute("SELECT stream FROM log").fetchone()[0]
        self.reread()
        self.committed = self.last

    def _check_version(self) -> None:
        read = self.connection.execute
        version = read("PRAGMA user_version").fetchone()[0]
        if version != VERSION and read("SELECT 1 FROM sqlite_schema").fetchone():
            raise sqlite3.DatabaseError(
                f"{self.path} was written by another version of the gateway:"
                f" its format is {version}, and this program needs {VERSION}"
            )
        read(f"PRAGMA user_version = {VERSION}")

    def reread(self) -> None:
        """Drops the unwritten rows and reads the numbers from the file: at the start, after a
        rollback, and after `prune`."""
        self._known = False
        read = self.connection.execute
        pruned = int(read("SELECT pruned FROM log").fetchone()[0])
        self.last = int(read("SELECT MAX(last) FROM events").fetchone()[0] or pruned)
        self._lines: list[bytes] = []  # events of the current message, as JSON lines
        self._unwritten = 0  # the number of events in `_lines`
        self._new_events: list[tuple[int, int, bytes]] = []
        self._new_received: list[tuple[object, ...]] = []
        self._received = int(read("SELECT MAX(id) FROM received").fetchone()[0] or 0)
        self.pruned = pruned
        self._known = True  # whether the numbers are those in the file

    def begin(self) -> None:
        if not self._known:
            self.reread()
        self.connection.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Commits the transaction; returns when it is on disk. The inbox calls this in a thread."""
        self.connection.execute("COMMIT")

    def flush(self) -> None:
        """Writes the added rows. Call this before `commit`."""
        # `executemany` costs less than one statement per row.
        write = self.connection.executemany
        write("INSERT INTO events VALUES (?, ?, ?)", self._new_events)
        write("INSERT INTO received VALUES (?, ?, ?, ?, ?, ?, ?, ?)", self._new_received)
        self._new_events.clear()
        self._new_received.clear()

    def rollback(self) -> None:
        """Rolls back. If this fails, the next `begin` reads the numbers again."""
        self._known = False
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")
        self.reread()

    def known(self, digests: Sequence[bytes]) -> dict[bytes, tuple[Numbers, bytes]]:
        """The stored messages with these digests: their numbers and their bytes, by digest."""
        marks = ",".join("?" * len(digests))
        rows = self.connection.execute(
            f"SELECT digest, id, first, last, raw FROM received WHERE digest IN ({marks})", digests
        )
        return {row[0]: (Numbers(*row[1:4]), row[4]) for row in rows}

    def first_with(self, seq: int) -> int:
        """The number of the first event of the message that event `seq` belongs to."""
        self.flush()
        row = self.connection.execute(
            "SELECT first FROM events WHERE last >= ? ORDER BY last LIMIT 1", (seq,)
        ).fetchone()
        return int(row[0]) if row else self.last - self._unwritten + 1

    @property
    def current(self) -> int:
        """The number that the current message will get."""
        return self._received + 1

    def add_event(self, data: bytes) -> int:
        """Appends an event to the current message; returns its number."""
        self._add(data, 1)
        return self.last

    def send(self, *messages: Message) -> int:
        """Appends messages of the stream to the current message; returns the first one's number."""
        # Converted to a list, because msgspec 0.22 leaks the iterator of any other sequence.
        self._add(_encoder.encode_lines(list(messages))[:-1], len(messages))
        return self.last - len(messages) + 1

    def _add(self, lines: bytes, count: int) -> None:
        self._lines.append(lines)
        self._unwritten += count
        self.last += count

    def reject(self, reason: str, pat_id: int | None = None, received: int | None = None) -> None:
        """Appends an event that the tool stores in the table `rejected`, with the first 255
        characters of the reason.

        received: number of the raw message; default: the current message.
        """
        self.add_event(_encoder.encode(Unusable(reason[:255], pat_id, received or self.current)))

    def add_events(self) -> int:
        """Ends a message: adds its events as one row; returns the number of the first event."""
        first = self.last - self._unwritten + 1
        if self._unwritten:
            self._new_events.append((self.last, first, b"\n".join(self._lines)))
            self._lines.clear()
            self._unwritten = 0
        return first

    def add_received(self, message: Received) -> Numbers:
        """Ends a message: adds it and its events."""
        self._received += 1
        first = self.add_events()
        self._new_received.append(
            (self._received, *message[:4], first, self.last, message.raw),
        )
        return Numbers(self._received, first, self.last)

    def prune(self, before: float) -> bool:
        """Removes the oldest messages received before a time (seconds since 1970), with their
        events. Removes at most about PRUNED_AT_ONCE; returns False if there were none."""
        read = self.connection.execute
        rows = read(
            "SELECT id, last FROM received WHERE at < ? AND id <= "
            "(SELECT MIN(id) FROM received) + ? ORDER BY id",
            (before, PRUNED_AT_ONCE),
        ).fetchall()
        if not rows:
            return False
        last_id, last_seq = rows[-1][0], max(row[1] for row in rows)
        read("DELETE FROM received WHERE id <= ?", (last_id,))
        read("DELETE FROM refs WHERE seq <= ?", (last_seq,))
        read("DELETE FROM events WHERE last <= ?", (last_seq,))
        read("UPDATE log SET pruned = max(pruned, ?)", (last_seq,))
        return True

    def close(self) -> None:
        self.connection.close()


class LogReader:
    """Reads committed events, concurrently with the writer."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(
            f"file:{path}?mode=ro", uri=True, isolation_level=None, timeout=5
        )

    def events(self, after: int, most: int) -> list[tuple[int, bytes]]:
        """Returns (number, data) of the events after number `after`, up to the end of the message
        that reaches `most` events.
        """
        found: list[tuple[int, bytes]] = []
        rows = self._connection.execute(
            "SELECT first, data FROM events WHERE last > ? ORDER BY last", (after,)
        )
        for first, data in rows:
            found += [pair for pair in enumerate(data.split(b"\n"), first) if pair[0] > after]
            if len(found) >= most:
                break
        rows.close()
        return found

    def close(self) -> None:
        self._connection.close()


def days_ago(days: float) -> float:
    return time.time() - days * 86_400
