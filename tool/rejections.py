"""Makes the rows of table `rejected`, including dead letters."""

import logging

import msgspec

from wire.batches import RawMessage
from wire.messages import Id
from wire.tables import RejectedRow

log = logging.getLogger("tool")

# The reason of a dead letter starts with this text, by which `python -m tool replay` selects rows.
DEAD_LETTER = "cannot be processed: "


class _Patient(msgspec.Struct):
    pat_id: Id


_patient = msgspec.json.Decoder(_Patient)


def rejected_row(stream: str, raw: RawMessage, reason: str, now: str) -> RejectedRow:
    """The row of a rejected message. Truncates the reason to the column's 255 characters."""
    message_id = f"{stream}-{raw.seq}"
    log.debug("message %s rejected: %s", message_id, reason, extra={"message_id": message_id})
    try:
        pat_id = _patient.decode(raw.data).pat_id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pat_id = None
    text = raw.data.decode("utf-8", "backslashreplace")
    return RejectedRow(stream, raw.seq, pat_id, reason[:255], text, now)


def dead_letter_row(stream: str, raw: RawMessage, error: Exception, now: str) -> RejectedRow:
    """The row of a dead letter: a message that passed validation but failed in processing."""
    reason = f"{DEAD_LETTER}{type(error).__name__}: {error}"
    message_id = f"{stream}-{raw.seq}"
    log.error("message %s: %s", message_id, reason, extra={"message_id": message_id})
    return rejected_row(stream, raw, reason, now)
