"""Version 2: messages of version 2, and several versions of one model side by side.

MySQL commits after each statement that changes a table, so a statement is skipped if an interrupted
run has already executed it.
"""

from alembic import op
from sqlalchemy import text

from tool.database.migrations.collation import binary

revision = "0002"
down_revision = "0001"

OLD_TABLES = (
    *("readings", "stays", "vitals", "predictions", "pending", "rejected", "positions", "models"),
)

# Outcomes of stays.
OUTCOMES = """
CREATE TABLE IF NOT EXISTS outcomes (
    stream         VARCHAR(32)  NOT NULL,
    seq            BIGINT       NOT NULL,
    pat_id         BIGINT       NOT NULL,
    date_admission DATE         NOT NULL,
    name           VARCHAR(64)  NOT NULL,
    value          DOUBLE       NOT NULL,
    happened_at    DATETIME     NOT NULL,
    PRIMARY KEY (stream, seq),
    UNIQUE (pat_id, date_admission, stream, name, seq)
)"""

# Withdrawn readings: message `seq` removed reading `of_seq` from `readings`.
WITHDRAWN = """
CREATE TABLE IF NOT EXISTS withdrawn (
    stream         VARCHAR(32)  NOT NULL,
    seq            BIGINT       NOT NULL,
    of_seq         BIGINT       NOT NULL,
    pat_id         BIGINT       NOT NULL,
    date_admission DATE         NOT NULL,
    measured_at    DATETIME     NOT NULL,
    parameter      VARCHAR(64)  NOT NULL,
    value          DOUBLE       NOT NULL,
    PRIMARY KEY (stream, of_seq),
    UNIQUE (stream, seq),
    UNIQUE (pat_id, date_admission, stream, of_seq)
)"""

# Acknowledgements of alarms by a person.
ACKNOWLEDGEMENTS = """
CREATE TABLE IF NOT EXISTS acknowledgements (
    stream          VARCHAR(32)  NOT NULL,
    seq             BIGINT       NOT NULL,
    pat_id          BIGINT       NOT NULL,
    date_admission  DATE         NOT NULL,
    model           VARCHAR(64)  NULL,
    author          VARCHAR(64)  NOT NULL,
    acknowledged_at DATETIME     NOT NULL,
    snooze_hours    DOUBLE       NOT NULL,
    PRIMARY KEY (stream, seq),
    UNIQUE (pat_id, date_admission, stream, seq)
)"""

# SQLite cannot change a primary key, so on SQLite these tables replace the old ones.
NEW_PREDICTIONS = """
CREATE TABLE new_predictions (
    stream         VARCHAR(32)  NOT NULL,
    seq            BIGINT       NOT NULL,
    model          VARCHAR(64)  NOT NULL,
    version        VARCHAR(64)  NOT NULL,
    pat_id         BIGINT       NOT NULL,
    date_admission DATE         NOT NULL,
    measured_at    DATETIME     NOT NULL,
    features       JSON         NOT NULL,
    probability    DOUBLE       NULL,
    reason         VARCHAR(255) NULL,
    created_at     DATETIME(3)  NOT NULL,
    PRIMARY KEY (stream, seq, model, version)
)"""
NEW_PENDING = """
CREATE TABLE new_pending (
    stream         VARCHAR(32)  NOT NULL,
    seq            BIGINT       NOT NULL,
    model          VARCHAR(64)  NOT NULL,
    version        VARCHAR(64)  NOT NULL,
    PRIMARY KEY (stream, seq, model, version)
)"""


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        _change_sqlite()
    else:
        _change_mysql()
    for table in (OUTCOMES, WITHDRAWN, ACKNOWLEDGEMENTS):
        op.execute(f"{table} {binary()}")


def _change_sqlite() -> None:
    op.execute("ALTER TABLE stays ADD COLUMN identifier VARCHAR(64) NULL")
    op.execute("ALTER TABLE stays ADD COLUMN place VARCHAR(64) NULL")
    op.execute(NEW_PENDING)
    op.execute(
        "INSERT INTO new_pending SELECT pending.stream, pending.seq, pending.model, version"
        " FROM pending JOIN predictions ON predictions.stream = pending.stream"
        " AND predictions.seq = pending.seq AND predictions.model = pending.model"
    )
    op.execute(NEW_PREDICTIONS)
    op.execute("INSERT INTO new_predictions SELECT * FROM predictions")
    for table in ("pending", "predictions"):
        op.execute(f"DROP TABLE {table}")
        op.execute(f"ALTER TABLE new_{table} RENAME TO {table}")


def _change_mysql() -> None:
    for table in OLD_TABLES:
        # Only texts of the same collation can be compared, and the new tables have the binary
        # collation.
        if _compares_otherwise(table):
            op.execute(f"ALTER TABLE {table} CONVERT TO {binary()}")
    if not _rows("columns", "stays", "column_name = 'place'"):
        op.execute(
            "ALTER TABLE stays ADD COLUMN identifier VARCHAR(64) NULL,"
            " ADD COLUMN place VARCHAR(64) NULL"
        )
    if not _version_is_in_key("predictions"):
        op.execute(
            "ALTER TABLE predictions DROP PRIMARY KEY,"
            " ADD PRIMARY KEY (stream, seq, model, version)"
        )
    if not _rows("columns", "pending", "column_name = 'version'"):
        op.execute("ALTER TABLE pending ADD COLUMN version VARCHAR(64) NULL")
    if not _version_is_in_key("pending"):
        op.execute(
            "UPDATE pending JOIN predictions ON predictions.stream = pending.stream"
            " AND predictions.seq = pending.seq AND predictions.model = pending.model"
            " SET pending.version = predictions.version"
        )
        op.execute(
            "ALTER TABLE pending MODIFY COLUMN version VARCHAR(64) NOT NULL, DROP PRIMARY KEY,"
            " ADD PRIMARY KEY (stream, seq, model, version)"
        )


def _compares_otherwise(table: str) -> bool:
    # MariaDB stores JSON in LONGTEXT.
    collation = binary().rpartition(" ")[2]
    return _rows("columns", table, f"collation_name <> '{collation}' AND data_type <> 'longtext'")


def _version_is_in_key(table: str) -> bool:
    return _rows(
        "key_column_usage", table, "constraint_name = 'PRIMARY' AND column_name = 'version'"
    )


def _rows(view: str, table: str, where: str) -> bool:
    """Whether a view of information_schema has a row of the table that matches `where`."""
    statement = text(
        f"SELECT COUNT(*) FROM information_schema.{view}"
        f" WHERE table_schema = DATABASE() AND table_name = :table AND {where}"
    )
    return bool(op.get_bind().execute(statement, {"table": table}).scalar())
