"""Writes the stays, readings, predictions and outcomes of one stream as CSV or Parquet, from one
snapshot."""

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import csv, parquet

from training.database import ROWS_AT_ONCE, newest_stream, snapshot
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

# Spreadsheets run a text as a formula if it begins with one of these.
FORMULA = ("=", "+", "-", "@", "\t", "\r")

log = logging.getLogger("training")


def export(url: str, stream: str, folder: Path, file_format: str) -> Iterator[tuple[Path, int]]:
    """Writes the tables; yields each file with the number of its rows. url: as for
    `training.database.read`. stream: empty for the stream with the latest commit. file_format: csv
    or parquet. Dates and times are text, as in `wire.tables`. In csv, `'` is put before a text that
    a spreadsheet would run as a formula. Raises DatabaseFailure or OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with snapshot(url) as (cursor, mark):
        stream = newest_stream(cursor, stream, url)
        for table in EXPORTED:
            file = folder / f"{table}.{file_format}"
            part = folder / f".{file.name}.part"
            names = ", ".join(f"`{name}`" for name in columns(table))
            order = ", ".join(KEYS[table])
            # All streams have the same models.
            where = "" if table == "models" else f"WHERE stream = {mark}"
            values = (stream,) if where else ()
            cursor.execute(f"SELECT {names} FROM {table} {where} ORDER BY {order}", values)
            with _writer(part, table, file_format) as writer:
                rows = _write(writer, cursor, table, _harmless if file_format == "csv" else str)
            part.replace(file)
            yield file, rows


def _write(writer: Any, cursor: Any, table: str, text: Callable[[Any], str]) -> int:
    done, report_at = 0, time.monotonic() + 2
    schema = _schema(table)
    while rows := cursor.fetchmany(ROWS_AT_ONCE):
        values = (
            [None if cell is None else text(cell) for cell in column]
            if field.type == pa.string()
            else column
            for column, field in zip(zip(*rows, strict=True), schema, strict=True)
        )
        writer.write_table(
            pa.table([pa.array(v, f.type) for v, f in zip(values, schema, strict=True)], schema)
        )
        done += len(rows)
        if time.monotonic() > report_at:
            log.info("%s: %s rows", table, f"{done:,}")
            report_at += 2
    return done


def _writer(path: Path, table: str, file_format: str) -> Any:
    if file_format == "csv":
        return csv.CSVWriter(path, _schema(table))
    return parquet.ParquetWriter(path, _schema(table), compression="zstd")


def _schema(table: str) -> pa.Schema:
    fields = TABLES[table].__annotations__
    return pa.schema([(name, TYPES[kind]) for name, kind in fields.items()])


def _harmless(cell: Any) -> str:
    text = str(cell)
    return f"'{text}" if text.startswith(FORMULA) else text
