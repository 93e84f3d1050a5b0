"""Measures the space of each table: `python -m tool capacity`."""

from typing import Any, NamedTuple

from tool.database.session import Session
from wire.database import is_sqlite
from wire.tables import TABLES

SQLITE = "SELECT SUM(pgsize) FROM dbstat WHERE name IN (SELECT name FROM sqlite_master"
OF_SQLITE = f"{SQLITE} WHERE tbl_name = ?)"
OF_MYSQL = (
    "SELECT data_length + index_length FROM information_schema.tables"
    " WHERE table_schema = DATABASE() AND table_name = ?"
)


class Space(NamedTuple):
    """The number of rows of a table, and its size in bytes, including its indexes."""

    table: str
    rows: int
    bytes: int


def measure(session: Session) -> list[Space]:
    """The space of all tables, the largest first. Raises DatabaseError."""
    statement = OF_SQLITE if is_sqlite(session.url) else OF_MYSQL
    found = []
    # No time limit, because counting the rows of a large table takes minutes.
    with session.unlimited() as cursor:
        for table in TABLES:
            if not is_sqlite(session.url):
                # The server itself updates its figures only occasionally.
                cursor.execute(f"ANALYZE NO_WRITE_TO_BINLOG TABLE {table}")
                cursor.fetchall()
            session.execute(cursor, statement, (table,))
            size = _number(cursor)
            cursor.execute(f"SELECT COUNT(*) FROM {table}")
            found.append(Space(table, _number(cursor), size))
    return sorted(found, key=lambda space: -space.bytes)


def report(spaces: list[Space]) -> str:
    """A text table of the rows, the bytes, and the bytes per reading; empty tables are omitted."""
    readings = next(space.rows for space in spaces if space.table == "readings")
    whole = Space("all", sum(space.rows for space in spaces), sum(space.bytes for space in spaces))
    lines = [f"{'table':<20}{'rows':>14}{'bytes':>18}{'bytes/reading':>15}"]
    for space in (*(space for space in spaces if space.rows), whole):
        each = f"{space.bytes / readings:>15,.1f}" if readings else f"{'':>15}"
        lines.append(f"{space.table:<20}{space.rows:>14,}{space.bytes:>18,}{each}")
    return "\n".join(lines)


def _number(cursor: Any) -> int:
    [(value,)] = cursor.fetchall()
    return int(value or 0)
