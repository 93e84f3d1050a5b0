"""Writes the stays, readings, predictions and outcomes of one stream as CSV or Parquet, from one
snapshot."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import starmap
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from msgspec.structs import astuple, replace
from pyarrow import csv, parquet

from training.database import ROWS_AT_ONCE, Snapshot, snapshot
from wire import stored_features
from wire.tables import KEYS, TABLES, ModelRow, PredictionRow, columns

EXPORTED = ("stays", "readings", "models", "predictions", "outcomes")
FORMATS = ("csv", "parquet")
TYPES = {
    int: pa.int64(),
    float: pa.float64(),
    float | None: pa.float64(),
    int | None: pa.int64(),
    str: pa.string(),
    str | None: pa.string(),
}
# The types in Parquet of columns that `wire.tables` has as text.
PARQUET = {
    "date_admission": pa.date32(),
    "date_discharge": pa.date32(),
    "measured_at": pa.timestamp("ms"),
    "happened_at": pa.timestamp("ms"),
    "created_at": pa.timestamp("ms", tz="UTC"),
    "seen_at": pa.timestamp("ms", tz="UTC"),
}
FEATURES = pa.list_(pa.float64())
# The other prediction for the reading, if it has the array of features.
ARRAYS = """
LEFT JOIN predictions o ON o.stream = t.stream AND o.seq = t.seq
    AND o.model = t.features_model AND o.version = t.features_version"""

# Spreadsheets run a text as a formula if it begins with one of these.
FORMULA = ("=", "+", "-", "@", "\t", "\r")

log = logging.getLogger("training")
_numbers = msgspec.json.Decoder(list[float | None])


def export(url: str, stream: str, folder: Path, file_format: str) -> Iterator[tuple[Path, int]]:
    """Writes the tables; yields each file with the number of its rows. url: as for
    `training.database.read`. stream: empty for the stream with the latest commit. file_format: csv
    or parquet. In csv, dates, times and features are text, as in `wire.tables`, and `'` is put
    before a text that a spreadsheet would run as a formula. In parquet, dates, times and features
    have the types in PARQUET and FEATURES. Raises DatabaseFailure or OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with snapshot(url) as stored:
        stream = stored.stream(stream)
        for table in EXPORTED:
            file = folder / f"{table}.{file_format}"
            part = folder / f".{file.name}.part"
            schema = _schema(table, file_format)
            text = _harmless if file_format == "csv" else str
            with _writer(part, schema, file_format) as writer:
                rows = _write(writer, schema, _portions(stored, table, stream), table, text)
            part.replace(file)
            yield file, rows


def _portions(stored: Snapshot, table: str, stream: str) -> Iterator[Sequence[Sequence[Any]]]:
    names = ", ".join(f"t.`{name}`" for name in columns(table))
    order = ", ".join(f"t.{name}" for name in KEYS[table])
    # All streams have the same models.
    where, values = ("", ()) if table == "models" else ("WHERE t.stream = ?", (stream,))
    array, joined = (", o.features", ARRAYS) if table == "predictions" else ("", "")
    models = stored.select(f"SELECT {', '.join(columns('models'))} FROM models").fetchall()
    features = {(row.model, row.version): row.names for row in starmap(ModelRow, models)}
    cursor = stored.select(
        f"SELECT {names}{array} FROM {table} t {joined} {where} ORDER BY {order}", *values
    )
    while rows := cursor.fetchmany(ROWS_AT_ONCE):
        if array:
            rows = [_complete(PredictionRow(*row[:-1]), row[-1], features) for row in rows]
        yield rows


def _complete(
    row: PredictionRow, array: str | None, names: Mapping[tuple[str, str], list[str]]
) -> tuple[Any, ...]:
    """The row, with all its features. array: that of the other version, if it has one."""
    if array and row.features_model and row.features_version:
        others = names[row.features_model, row.features_version]
        values = stored_features.read(row.features, names[row.model, row.version], array, others)
        row = replace(row, features=msgspec.json.encode(values).decode())
    return astuple(row)


def _write(
    writer: Any,
    schema: pa.Schema,
    portions: Iterable[Sequence[Sequence[Any]]],
    table: str,
    text: Callable[[Any], str],
) -> int:
    done, report_at = 0, time.monotonic() + 2
    for rows in portions:
        cells_by_column = zip(*rows, strict=True)
        arrays = [
            _array(cells, field.type, text)
            for cells, field in zip(cells_by_column, schema, strict=True)
        ]
        writer.write_table(pa.table(arrays, schema))
        done += len(rows)
        if time.monotonic() > report_at:
            log.info("%s: %s rows", table, f"{done:,}")
            report_at += 2
    return done


def _array(cells: Sequence[Any], kind: pa.DataType, text: Callable[[Any], str]) -> pa.Array:
    """The cells of a column. Dates, times and lists are converted from their texts."""
    if kind in (pa.int64(), pa.float64()):
        return pa.array(cells, kind)
    texts = [None if cell is None else text(cell) for cell in cells]
    if kind == FEATURES:
        # A row from version 1 of the tables may still have an object, if its model now has other
        # features. It becomes null.
        return pa.array([_numbers.decode(t) if t and t[0] == "[" else None for t in texts], kind)
    array = pa.array(texts, pa.string())
    if not pa.types.is_timestamp(kind):
        return array.cast(kind)
    times = array.cast(pa.timestamp("us"))
    return (pc.assume_timezone(times, kind.tz) if kind.tz else times).cast(kind)


def _writer(path: Path, schema: pa.Schema, file_format: str) -> Any:
    if file_format == "csv":
        return csv.CSVWriter(path, schema)
    return parquet.ParquetWriter(path, schema, compression="zstd")


def _schema(table: str, file_format: str) -> pa.Schema:
    kinds = {name: TYPES[kind] for name, kind in TABLES[table].__annotations__.items()}
    if file_format == "parquet":
        kinds |= {name: kind for name, kind in PARQUET.items() if name in kinds}
        if table == "predictions":  # in `models`, the features are objects
            kinds["features"] = FEATURES
    return pa.schema(kinds)


def _harmless(cell: Any) -> str:
    text = str(cell)
    return f"'{text}" if text.startswith(FORMULA) else text
