"""Adds the predictions of a version of a model for readings that were stored before it was in use:
`python -m tool backfill NAME VERSION`.

Computes the features of each stay again, reading by reading in the order of the stream, as the
worker did. A reading gets a prediction if another model has one for it, because a worker asks all
models about the same readings. The running tool never predicts for a stored reading again, so the
tool and the backfill can write at the same time. After an interruption, the next run adds the
missing rows.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from itertools import islice

import msgspec
from msgspec.structs import replace
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from tool.aggregates import Value
from tool.database import Database, PermanentFailure
from tool.database.backfill import BackfillTables
from tool.declarations import changed_features, model_rows
from tool.features import FeatureSet, Stay
from tool.model_client import Declaration, Model, ModelClient, feature_set
from tool.model_server import InvalidRows, ModelUnavailable
from tool.times import hours_of, now
from wire.messages import ordinal
from wire.tables import PredictionRow, ReadingRow, StayRow, WithdrawnRow

log = logging.getLogger("tool")

# Predictions per transaction.
PORTION = 1_000
# The backfill ends if the model is unavailable for this number of seconds.
PATIENCE = 60.0
LOG_EVERY = 10.0  # seconds

Row = tuple[ReadingRow, list[Value]]


def backfill(database: Database, client: ModelClient, model: Model) -> int:
    """Adds the missing predictions of the model; returns their number.

    Raises ModelUnavailable, and DatabaseError, for example if the version's features differ from
    those that are stored. After an error, the added rows stay.
    """
    tables = BackfillTables(database)
    [row] = model_rows(Declaration(model))
    if changed_features(database.models(), [row]):
        raise PermanentFailure(
            f"the features of {model.model} {model.version} differ from those in table models:"
            " add the model as a new version"
        )
    # The model is added without its alarm rule, so that no alarms are computed before the rows are
    # complete.
    tables.add_model(replace(row, role="retired", alarm=None))
    try:
        return _add_missing(tables, client, model)
    finally:
        tables.mark_changed(model.model, model.version, now())


def _add_missing(tables: BackfillTables, client: ModelClient, model: Model) -> int:
    stays = tables.stays()
    done, logged = 0, time.monotonic()
    for number, stay in enumerate(stays, 1):
        for rows in _missing(tables, client, model, stay):
            tables.add(rows)
            done += len(rows)
        if time.monotonic() - logged > LOG_EVERY:
            logged = time.monotonic()
            log.info(
                "backfill: %d of %d stays done, %d predictions added", number, len(stays), done
            )
    return done


def _missing(
    tables: BackfillTables, client: ModelClient, model: Model, stay: StayRow
) -> Iterator[list[PredictionRow]]:
    """Yields the missing predictions of a stay, in portions."""
    readings, withdrawn = tables.readings((stay.stream, stay.pat_id, stay.date_admission))
    numbers = [row.seq for row in readings] + [row.of_seq for row in withdrawn]
    made = tables.made(stay.stream, numbers, model.model, model.version)
    if made.done.issuperset(made.at):
        return
    features = feature_set(model)
    wanted = (
        (reading, values)
        for reading, values in _walk(stay, readings, withdrawn, features)
        if reading.seq in made.at and reading.seq not in made.done
    )
    while portion := list(islice(wanted, PORTION)):
        answers = _answers(client, model, features, portion)
        yield [
            _prediction(model, row, answer, made.at[row[0].seq])
            for row, answer in zip(portion, answers, strict=True)
        ]


def _walk(
    stay: StayRow,
    readings: Sequence[ReadingRow],
    withdrawn: Sequence[WithdrawnRow],
    features: FeatureSet,
) -> Iterator[tuple[ReadingRow, list[Value]]]:
    """Yields each reading in the order of the stream, with the stay's features at that point."""
    gone = {row.of_seq: row.seq for row in withdrawn}
    rows = sorted([*readings, *map(_reading, withdrawn)], key=lambda row: row.seq)
    left = sorted(gone.values())
    admitted = ordinal(stay.date_admission)
    state = Stay(features.windows, age=stay.age)
    for place, row in enumerate(rows):
        if left and left[0] < row.seq:
            # A reading cannot be subtracted from the statistics, so the stay is computed again from
            # the remaining readings.
            state = Stay(features.windows, age=stay.age)
            for earlier in rows[:place]:
                if gone.get(earlier.seq, row.seq) >= row.seq:
                    state.add(
                        hours_of(earlier.measured_at, admitted), earlier.parameter, earlier.value
                    )
            left = [seq for seq in left if seq > row.seq]
        state.add(hours_of(row.measured_at, admitted), row.parameter, row.value)
        yield row, features.row(state)


def _reading(row: WithdrawnRow) -> ReadingRow:
    stay = (row.pat_id, row.date_admission)
    return ReadingRow(row.stream, row.of_seq, *stay, row.measured_at, row.parameter, row.value)


def _answers(
    client: ModelClient, model: Model, features: FeatureSet, rows: Sequence[Row]
) -> list[float | str]:
    """For each row the output, or the reason why there is none."""
    answers: list[float | str | None] = [features.missing(values) for _, values in rows]
    asked = [values for (_, values), reason in zip(rows, answers, strict=True) if reason is None]
    found = iter(_ask(client, model, asked))
    return [next(found) if answer is None else answer for answer in answers]


def _ask(client: ModelClient, model: Model, rows: Sequence[list[Value]]) -> list[float | str]:
    """For each row the output, or the reason why the model rejects it. Retries for PATIENCE
    seconds, and bisects rejected rows. Raises ModelUnavailable."""
    if not rows:
        return []
    retrying = Retrying(
        retry=retry_if_exception_type(ModelUnavailable),
        stop=stop_after_delay(PATIENCE),
        wait=wait_fixed(1),
        reraise=True,
    )
    try:
        return list(retrying(client.predict, model, rows))
    except InvalidRows as error:
        if len(rows) == 1:
            return [f"rejected by the model: {error}"[:255]]
        half = len(rows) // 2
        return _ask(client, model, rows[:half]) + _ask(client, model, rows[half:])


def _prediction(model: Model, row: Row, answer: float | str, at: str) -> PredictionRow:
    reading, values = row
    return PredictionRow(
        *(reading.stream, reading.seq, model.model, model.version),
        *(reading.pat_id, reading.date_admission, reading.measured_at),
        msgspec.json.encode(values).decode(),
        None if isinstance(answer, str) else answer,
        answer if isinstance(answer, str) else None,
        at,
    )
