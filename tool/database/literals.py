"""Formats rows as SQL literals for bulk inserts, and normalises rows that were read."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from math import isfinite
from types import NoneType
from typing import Any

from tool.database.errors import PermanentFailure

# Characters per statement. With a megabyte, client and server take longer, because they get fresh
# memory from the system for each statement.
STATEMENT = 100_000


def statements(rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """Yields the rows as texts `(…),(…)` of about STATEMENT characters each.

    Raises PermanentFailure for a value that no column can hold. The session needs
    NO_BACKSLASH_ESCAPES.
    """
    some: list[str] = []
    size = 0
    quoted = _Quoted()
    columns = [_literals(cells, quoted) for cells in zip(*rows, strict=True)]
    for text in map(",".join, zip(*columns, strict=True)):
        some.append(text)
        size += len(text)
        if size > STATEMENT:
            yield f"({'),('.join(some)})"
            some, size = [], 0
    if some:
        yield f"({'),('.join(some)})"


def _literals(cells: Sequence[Any], quoted: "_Quoted") -> Iterable[str]:
    """The literals of a column; most columns have values of one type."""
    types = set(map(type, cells))
    if types == {str}:
        return map(quoted.__getitem__, cells)
    if types == {int} or (types == {float} and all(map(isfinite, cells))):
        return map(repr, cells)
    return [
        "NULL"
        if cell is None
        else quoted[cell]
        if cell.__class__ is str
        else repr(cell)
        if cell.__class__ is int or (cell.__class__ is float and isfinite(cell))
        else _refuse(cell)
        for cell in cells
    ]


class _Quoted(dict[str, str]):
    """Caches texts as SQL literals, because most texts repeat from row to row."""

    def __missing__(self, text: str) -> str:
        literal = self[text] = "'" + text.replace("'", "''") + "'"
        return literal


def _refuse(cell: object) -> str:
    raise PermanentFailure(f"no column can hold {cell!r}")


def names(columns: Iterable[str]) -> str:
    """Column names in backticks, which SQLite accepts too: MySQL reserves `last_value`."""
    return ", ".join(f"`{column}`" for column in columns)


def plain(rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
    """Converts dates to ISO text and JSON to text, because drivers return different types."""
    return list(zip(*map(_plain_column, zip(*rows, strict=True)), strict=True))


def _plain_column(cells: Sequence[Any]) -> Iterable[Any]:
    types = set(map(type, cells))
    if types <= {int, float, str, NoneType}:
        return cells
    if bytearray in types:
        return [cell.decode() if isinstance(cell, bytearray) else cell for cell in cells]
    return map(_Texts().__getitem__, cells)


class _Texts(dict[Any, Any]):
    """Caches dates, times and JSON as texts, because most repeat from row to row."""

    def __missing__(self, cell: Any) -> Any:
        if cell is None or isinstance(cell, int | float | str):
            return cell
        if isinstance(cell, bytes):
            text = cell.decode()
        elif isinstance(cell, datetime):
            text = cell.isoformat(" ", "milliseconds" if cell.microsecond else "seconds")
        else:
            text = str(cell)
        self[cell] = text
        return text
