"""Stores batches in order within their partition, and each message once.

A batch is one transaction that also advances its partition's position. Messages up to the position
are already stored. A batch is early if messages between the position and its start are missing.
"""

import logging
from collections import Counter
from collections.abc import Callable
from functools import partial

from msgspec.structs import replace

from tool.batch import BatchProcessor
from tool.database import Changes, Database, Moved, Unavailable
from tool.model_client import Declaration, ModelClient
from tool.rejections import dead_letter_row
from tool.result import Result
from tool.stays import Part, Stays
from tool.times import now
from wire.batches import Batch, RawMessage

log = logging.getLogger("tool")


class Early(Exception):
    """Messages before this batch are not stored yet."""


class DataHandler:
    """Stores batches. Each worker has its own handler, which keeps the stays of the worker's
    partition in memory."""

    def __init__(self, database: Database, client: ModelClient) -> None:
        self._database = database
        self._stays = Stays(database)
        self._processor = BatchProcessor(database, self._stays, client)
        self._positions: dict[Part, int] = {}
        # The number of partitions of each stream.
        self._partitions: dict[str, int] = {}

    def declare(self, declaration: Declaration) -> None:
        """Sets the models whose features are computed."""
        self._processor.declare(declaration)

    @property
    def backlog(self) -> bool:
        """Whether more batches are waiting, so that table `vitals` may be written later."""
        return self._stays.backlog

    @backlog.setter
    def backlog(self, value: bool) -> None:
        self._stays.backlog = value

    def handle(self, batch: Batch) -> Result:
        """Stores the batch's messages that are not stored yet.

        Raises Early if earlier messages are missing, Moved if another worker has stored messages of
        the partition meanwhile, and Unavailable if the database is unavailable. In these cases
        nothing has changed, except that a part of a batch that was bisected may be stored.
        """
        return self._continue(batch, self._store_or_split)

    def reject(self, batch: Batch, error: Exception) -> Result:
        """Stores the batch's only message as a dead letter. Raises the errors of `handle`."""
        return self._continue(batch, partial(self._store_dead_letter, error=error))

    def replay(self, stream: str, seq: int, data: bytes) -> Result:
        """Stores a rejected message as a late message. If the message is rejected again, it stays
        in `rejected` with the new reason. Raises Moved if it is no longer in `rejected`,
        Unavailable if the database is unavailable, and the error if its processing fails. In these
        cases nothing has changed.
        """
        # Another worker may have changed the stream meanwhile.
        self._stays.forget(stream)
        self.backlog = False
        try:
            return self._processor.process(
                [RawMessage(seq, 0.0, data)], Changes(stream, None, seq, seq, now())
            )
        except BaseException:
            self._stays.forget(stream)
            raise

    def complete(self) -> None:
        """Brings table `vitals` up to date with the readings. Raises Moved or Unavailable."""
        self._stays.complete(self._positions, now())

    def _continue(self, batch: Batch, store: Callable[[Batch], Result]) -> Result:
        """Applies `store` to the new messages of the batch."""
        key = (batch.stream, batch.part)
        if self._partitions.get(batch.stream) != batch.partitions:
            # Workers of other partitions may have stored messages of these patients meanwhile.
            self._stays.forget(batch.stream)
            self._partitions[batch.stream] = batch.partitions
        position = self._position(batch)
        if position < batch.after:
            raise Early(
                f"stream {batch.stream}, partition {batch.part}: stored up to message {position}"
            )
        messages = [raw for raw in batch.messages if raw.seq > position]
        try:
            result = Result(position)
            if messages:
                result = store(replace(batch, after=position, messages=messages))
        except BaseException:
            # Memory may differ from the database, so the next batch reads the position and the
            # stays again.
            self._positions.pop(key, None)
            self._stays.forget(batch.stream)
            raise
        self._positions[key] = result.position
        return result

    def _position(self, batch: Batch) -> int:
        """The last stored message of the partition."""
        key = (batch.stream, batch.part)
        known = self._positions.get(key)
        if known == batch.after:
            return known
        # The position is not in memory yet, the batch is repeated, or another worker has stored
        # messages.
        position = self._database.position(batch.stream, batch.part)
        if known != position:
            self._stays.forget(batch.stream)
        return position

    def _store_or_split(self, batch: Batch) -> Result:
        """Stores the batch; on an error, bisects it to find the messages that cannot be
        processed.
        """
        messages = batch.messages
        try:
            return self._processor.process(messages, _changes(batch))
        except (Moved, Unavailable):
            # Another worker was faster, or the database is unavailable: the messages are not the
            # cause.
            raise
        except Exception as error:
            log.debug(
                "stream %s: processing failed; the first message is %d",
                batch.stream,
                messages[0].seq,
                exc_info=True,
            )
            self._stays.forget(batch.stream)
            if len(messages) == 1:
                return self._store_dead_letter(batch, error)
        half = len(messages) // 2
        result = self._store_or_split(replace(batch, messages=messages[:half]))
        result += self._store_or_split(
            replace(batch, after=result.position, messages=messages[half:])
        )
        return result

    def _store_dead_letter(self, batch: Batch, error: Exception) -> Result:
        [raw] = batch.messages
        changes = _changes(batch)
        # After the number of partitions changes, stored messages are sent again.
        if self._database.is_stored(batch.stream, raw.seq):
            self._processor.repeat(raw, changes)
            return Result(raw.seq)
        changes.rejected.append(dead_letter_row(batch.stream, raw, error, changes.now))
        self._stays.commit(changes, {})
        received, codes = Counter([raw.received]), Counter(["dead_letter"])
        return Result(raw.seq, received=received, codes=codes)


def _changes(batch: Batch) -> Changes:
    """The changes of a batch, without rows yet."""
    key = (batch.stream, batch.part, batch.after, batch.last)
    return Changes(*key, now(), batch.partitions, batch.messages[0].seq)
