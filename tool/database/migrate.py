"""Upgrades the tables in numbered steps, by one program at a time."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from alembic import command
from alembic.config import Config
from mysql.connector import errorcode
from sqlalchemy import Connection, create_engine, inspect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from tool.database.errors import PermanentFailure, Unavailable
from tool.database.session import Session
from tool.database.versions import MIGRATIONS, TABLE, UPGRADING, VERSIONS
from wire.database import MYSQL_ERRORS, is_sqlite

log = logging.getLogger("tool.database")

# Seconds to wait for another program that is upgrading the tables.
LOCK_SECONDS = 3600
NO_RIGHT = (errorcode.ER_DBACCESS_DENIED_ERROR, errorcode.ER_TABLEACCESS_DENIED_ERROR)


def upgrade(session: Session) -> None:
    """Applies the missing steps in order.

    An interrupted step runs again. Raises PermanentFailure if the user may not change tables, and
    Unavailable if another program upgrades them for longer than LOCK_SECONDS.
    """
    driver = "sqlite://" if is_sqlite(session.url) else "mysql+mysqlconnector://"
    # No time limit, because a statement that changes a large table may take hours.
    connect = partial(session.connect, timeout=None)
    engine = create_engine(driver, creator=connect, poolclass=NullPool)
    try:
        with engine.connect() as connection, _alone(connection):
            log.info("upgrading the tables to version %s; large tables take minutes", VERSIONS[-1])
            config = Config(attributes={"connection": connection})
            config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
            if _version(connection) != VERSIONS[-1]:
                with _without_writers(connection):
                    command.upgrade(config, "head")
    except DBAPIError as error:
        if getattr(error.orig, "errno", None) in NO_RIGHT:
            raise PermanentFailure(
                f"the tables must be upgraded to version {VERSIONS[-1]}, which this user may not"
                " do: run `python -m tool migrate` as a user who may CREATE and ALTER"
            ) from error
        raise session.translate(error.orig) from error  # type: ignore[arg-type]
    except MYSQL_ERRORS as error:  # of a commit; SQLAlchemy does not know the C extension's error
        raise session.translate(error) from error


@contextmanager
def _alone(connection: Connection) -> Iterator[None]:
    """Holds a lock for changes of the tables; other programs wait for it. On SQLite all steps are
    one transaction. MySQL commits after each statement that changes tables.
    """
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {LOCK_SECONDS * 1000}")
        connection.exec_driver_sql("BEGIN EXCLUSIVE")
        yield
    else:
        # The server releases the lock when the connection ends, for whatever reason.
        lock = "SELECT GET_LOCK(CONCAT('migrate ', LEFT(DATABASE(), 48)), %s)"
        if connection.exec_driver_sql(lock, (LOCK_SECONDS,)).scalar() != 1:
            raise Unavailable("another program has been upgrading the tables for an hour")
        connection.commit()
        yield
    connection.commit()


def _version(connection: Connection) -> str | None:
    """The version of finished tables; None if there are none."""
    if not inspect(connection).has_table(TABLE):
        return None
    found = connection.exec_driver_sql(f"SELECT version_num FROM {TABLE}").scalar()
    return None if found is None else str(found)


@contextmanager
def _without_writers(connection: Connection) -> Iterator[None]:
    """Keeps running tools from writing, by renaming the version table, which each write
    transaction reads first.

    The rename waits for current transactions. The tools retry later ones until the tables are
    upgraded, and then end, because the version is newer. After an interruption the table keeps its
    second name.
    """
    if _version(connection) is not None:
        connection.exec_driver_sql(f"ALTER TABLE {TABLE} RENAME TO {UPGRADING}")
    yield
    connection.exec_driver_sql(f"ALTER TABLE {UPGRADING} RENAME TO {TABLE}")
