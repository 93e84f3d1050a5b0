"""Withdraws stored readings."""

from bisect import bisect_left
from operator import attrgetter

from tool.database import Changes, Database
from wire.messages import Rejected, Withdrawal
from wire.tables import ReadingRow, WithdrawnRow

# The reason why a withdrawal is rejected, with the number of its reading.
UNKNOWN_READING = "message {} is not a stored reading"


def withdraw(database: Database, changes: Changes, seq: int, message: Withdrawal) -> str | None:
    """Moves the reading to `withdrawn` and returns its parameter, or None if that was done before.
    The reading must be in an earlier message, stored or in `changes`. Raises Rejected if there is
    no such reading, or if it belongs to another stay.
    """
    place = bisect_left(changes.readings, message.of, key=attrgetter("seq"))
    in_batch = place < len(changes.readings) and changes.readings[place].seq == message.of
    reading = changes.readings[place] if in_batch else _stored(database, changes, message.of)
    # A withdrawal of a later message's reading is invalid too. That reading may already be stored,
    # because the buffer may send all messages again.
    if reading is None or message.of >= seq:
        # After the number of partitions changes, stored messages are sent again.
        if database.is_stored(changes.stream, seq):
            return None
        raise Rejected(UNKNOWN_READING.format(message.of), "unknown_reading")
    stay = (reading.pat_id, reading.date_admission)
    if stay != (message.pat_id, message.date_admission):
        raise Rejected(f"message {message.of} is a reading of another stay", "unknown_reading")
    if in_batch:
        del changes.readings[place]
    changes.withdrawn.append(
        WithdrawnRow(
            changes.stream,
            seq,
            message.of,
            *stay,
            reading.measured_at,
            reading.parameter,
            reading.value,
        )
    )
    return reading.parameter


def _stored(database: Database, changes: Changes, seq: int) -> ReadingRow | None:
    if any(row.of_seq == seq for row in changes.withdrawn):
        return None
    return database.reading(changes.stream, seq)
