"""Writes the stays, readings, predictions and outcomes of one stream as CSV or Parquet, from one
snapshot."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet

from training.database import ROWS_AT_ONCE, snapshot
from wire.tables import KEYS, TABLES, columns

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
            names = ", ".join(f"`{name}`" for name in columns(table))
            order = ", ".join(KEYS[table])
            # All streams have the same models.
            where = "" if table == "models" else "WHERE stream = ?"
            values = (stream,) if where else ()
            cursor = stored.select(f"SELECT {names} FROM {table} {where} ORDER BY {order}", *values)
            schema = _schema(table, file_format)
            text = _harmless if file_format == "csv" else str
            with _writer(part, schema, file_format) as writer:
                rows = _write(writer, schema, cursor, table, text)
            part.replace(file)
            yield file, rows


def _write(
    writer: Any, schema: pa.Schema, cursor: Any, table: str, text: Callable[[Any], str]
) -> int:
    done, report_at = 0, time.monotonic() + 2
    while rows := cursor.fetchmany(ROWS_AT_ONCE):
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
