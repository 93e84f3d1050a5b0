"""Checks the version of the tables: upgrades old ones, and raises for newer or foreign ones."""

from typing import Any

from tool.database.errors import PermanentFailure
from tool.database.session import Session
from tool.database.versions import TABLE, VERSIONS
from wire.tables import TABLES, columns


def prepare(session: Session) -> None:
    """Creates or upgrades the tables, then checks them.

    Raises PermanentFailure if this program cannot use the tables, or if they must be changed and
    the user may not change them. Raises Unavailable.
    """
    version = stored_version(session)
    if version is not None and version > VERSIONS[-1]:
        raise PermanentFailure(
            f"the database has version {version} and this program needs {VERSIONS[-1]}:"
            " start a newer ICU Stream"
        )
    if version != VERSIONS[-1]:
        from tool.database.migrate import upgrade  # takes 0.3 s; only upgrades need it

        upgrade(session)
    with session.transaction() as cursor:
        _check(session, cursor)


def stored_version(session: Session) -> str | None:
    """The version of the tables; None if there are no tables, if they have no version, or if their
    creation did not finish.
    """
    with session.transaction() as cursor:
        if TABLE not in session.tables(cursor):
            return None
        cursor.execute(f"SELECT version_num FROM {TABLE}")
        row = cursor.fetchone()
        cursor.fetchall()
    return str(row[0]) if row else None


def _check(session: Session, cursor: Any) -> None:
    for table in TABLES:
        cursor.execute(f"SELECT * FROM {table} LIMIT 0")
        missing = set(columns(table)) - {column[0] for column in cursor.description}
        cursor.fetchall()
        if missing:
            raise PermanentFailure(
                f"table {table} has no column {min(missing)}: the table belongs to another program"
                " or to a version before 1. Start with an empty database"
            )
    if defect := session.defect(cursor):
        raise PermanentFailure(defect)
