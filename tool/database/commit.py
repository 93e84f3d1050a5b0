"""Writes one batch, guarded by its partition's position."""

from typing import Any

from tool.database.changes import Changes
from tool.database.errors import Moved, PermanentFailure
from tool.database.session import Session
from tool.database.versions import TABLE, VERSIONS

MOVE = (
    "UPDATE positions SET seq = ?, committed_at = ?, partitions = COALESCE(?, partitions),"
    " vitals_seq = CASE WHEN ? THEN ? ELSE vitals_seq END"
    " WHERE stream = ? AND part = ? AND seq = ?"
    f" AND EXISTS (SELECT 1 FROM {TABLE} WHERE version_num = ?)"
)
# The alarms and `vitals` of a partition are computed from its last position on. If it is new or has
# been idle while others have stored more than GAP messages, these messages are skipped.
GAP = 10_000
VITALS = "UPDATE positions SET vitals_seq = ? WHERE stream = ? AND part = ? AND vitals_seq = ?"
ALARMS = "UPDATE alarm_positions SET seq = ? WHERE stream = ? AND part = ? AND seq = ?"
BEGIN = """
INSERT INTO alarm_positions (stream, part, model, version, seq)
SELECT ?, ?, model, version, ? FROM models WHERE alarm IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM alarm_positions a WHERE a.stream = ? AND a.part = ?
    AND a.model = models.model AND a.version = models.version)"""
WITHDRAWN = "FROM withdrawn WHERE stream = ? AND of_seq BETWEEN ? AND ?"


def write(session: Session, cursor: Any, changes: Changes) -> None:
    """Writes the changes in the current transaction.

    Raises Outdated if the tables have another version. Raises Moved if the partition is no longer
    at the position from which the changes were computed, or if a replayed message is no longer in
    `rejected`. Raises PermanentFailure for a reading that was withdrawn.
    """
    if changes.part is None:
        _take_from_rejected(session, cursor, changes)
        _check_withdrawn(session, cursor, changes)
    elif not _move_at_once(session, cursor, changes):
        _move(session, cursor, changes, changes.part)
        _check_withdrawn(session, cursor, changes)
    if changes.part is not None and changes.first - changes.after > GAP:
        _skip_gap(session, cursor, changes)
    session.insert(cursor, "readings", changes.readings)
    if changes.withdrawn:
        session.execute_each(
            cursor,
            "DELETE FROM readings WHERE stream = ? AND seq = ?",
            [(row.stream, row.of_seq) for row in changes.withdrawn],
        )
        session.insert(cursor, "withdrawn", changes.withdrawn)
    session.replace(cursor, "stays", changes.stays)
    session.replace(cursor, "vitals", changes.vitals)
    if changes.emptied:
        session.execute_each(
            cursor,
            "DELETE FROM vitals WHERE stream = ? AND pat_id = ? AND date_admission = ?"
            " AND parameter = ?",
            changes.emptied,
        )
    session.insert(cursor, "predictions", changes.predictions)
    session.insert(cursor, "pending", changes.pending)
    session.insert(cursor, "outcomes", changes.outcomes)
    session.insert(cursor, "acknowledgements", changes.acknowledgements)
    session.insert(cursor, "discharges", changes.discharges)
    session.replace(cursor, "rejected", changes.rejected)


def _skip_gap(session: Session, cursor: Any, changes: Changes) -> None:
    """Moves the partition's positions of the alarms and of `vitals` to its first message after a
    gap, if all earlier ones are included."""
    key, start = (changes.stream, changes.part), changes.first - 1
    session.execute(cursor, VITALS, (start, *key, changes.after))
    session.execute(cursor, ALARMS, (start, *key, changes.after))
    if not changes.after:
        session.execute(cursor, BEGIN, (*key, start, *key))


def _take_from_rejected(session: Session, cursor: Any, changes: Changes) -> None:
    session.check_version(cursor)
    session.execute(
        cursor,
        "DELETE FROM rejected WHERE stream = ? AND seq = ?",
        (changes.stream, changes.last),
    )
    if cursor.rowcount != 1:
        raise Moved


def _check_withdrawn(session: Session, cursor: Any, changes: Changes) -> None:
    """Raises PermanentFailure for a repeated reading that is already withdrawn."""
    if not changes.readings:
        return
    session.execute(cursor, f"SELECT of_seq {WITHDRAWN}", _range(changes))
    withdrawn = {seq for (seq,) in cursor.fetchall()}
    for row in changes.readings if withdrawn else ():
        if row.seq in withdrawn:
            raise PermanentFailure(f"message {row.seq} was withdrawn")


def _range(changes: Changes) -> tuple[str, int, int]:
    return changes.stream, changes.readings[0].seq, changes.readings[-1].seq


def _move_at_once(session: Session, cursor: Any, changes: Changes) -> bool:
    """Moves the partition's position; the same statement checks that none of the readings was
    withdrawn. Returns False if the position did not move, or if there are no readings."""
    if not changes.readings:
        return False
    statement = f"{MOVE} AND NOT EXISTS (SELECT 1 {WITHDRAWN})"
    session.execute(cursor, statement, (*_moved(changes), *_range(changes)))
    return bool(cursor.rowcount == 1)


def _moved(changes: Changes) -> tuple[object, ...]:
    return (
        *(changes.last, changes.now, changes.partitions or None, changes.complete, changes.last),
        *(changes.stream, changes.part, changes.after, VERSIONS[-1]),
    )


def _move(session: Session, cursor: Any, changes: Changes, part: int) -> None:
    # This statement precedes all other writes. If two workers process the same partition, the
    # second waits here.
    session.execute(cursor, MOVE, _moved(changes))
    if cursor.rowcount == 1:
        return
    session.check_version(cursor)
    if changes.after:
        raise Moved
    try:
        session.execute(
            cursor,
            "INSERT INTO positions (stream, part, seq, vitals_seq, committed_at, partitions)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (
                *(changes.stream, part, changes.last),
                *(changes.last if changes.complete else 0, changes.now, changes.partitions or None),
            ),
        )
    except session.duplicate_key:
        raise Moved from None
