"""The database: MySQL, MariaDB and SQLite behind one interface.

One batch is one transaction, guarded by its partition's position: `Database.commit` raises Moved
and changes nothing if the position is not the one that the batch was computed from.
"""

from tool.database.changes import Changes, VitalKey
from tool.database.database import Database, Waiting
from tool.database.errors import DatabaseError, Moved, Outdated, PermanentFailure, Unavailable
from tool.database.mysql import MySQLSession
from tool.database.sqlite import SQLiteSession
from wire.database import is_sqlite

__all__ = [
    "Changes",
    "Database",
    "DatabaseError",
    "Moved",
    "Outdated",
    "PermanentFailure",
    "Unavailable",
    "VitalKey",
    "Waiting",
    "connect",
]


def connect(url: str, password: str = "") -> Database:
    """The database at `sqlite:///PATH` or `mysql://USER[:PASSWORD]@HOST[:PORT]/DATABASE`.

    Connects on first use.
    """
    session = SQLiteSession if is_sqlite(url) else MySQLSession
    return Database(session(url, password))
