"""Version 3: alarms, and the discharges that clear them."""

from alembic import op
from sqlalchemy import inspect

from tool.database.migrations.collation import binary

revision = "0003"
down_revision = "0002"

# Append-only. kind is raise, again, acknowledge or clear; raised_seq is the message that raised the
# alarm. The second key finds the alarms of a stay, the third key finds the alarms of the last
# hours.
ALARMS = """
CREATE TABLE IF NOT EXISTS alarms (
    stream         VARCHAR(32)  NOT NULL,
    seq            BIGINT       NOT NULL,
    model          VARCHAR(64)  NOT NULL,
    version        VARCHAR(64)  NOT NULL,
    pat_id         BIGINT       NOT NULL,
    date_admission DATE         NOT NULL,
    kind           VARCHAR(16)  NOT NULL,
    raised_seq     BIGINT       NOT NULL,
    happened_at    DATETIME     NOT NULL,
    probability    DOUBLE       NULL,
    revision       INTEGER      NOT NULL,
    author         VARCHAR(64)  NULL,
    PRIMARY KEY (stream, seq, model, version),
    UNIQUE (pat_id, date_admission, stream, model, version, seq),
    UNIQUE (stream, model, version, happened_at, seq)
)"""

# The state of the alarm rule for each stay, up to message `seq`. The second key finds the active
# alarms; raised_seq is null if no alarm is active.
ALARM_STATE = """
CREATE TABLE IF NOT EXISTS alarm_state (
    stream          VARCHAR(32)  NOT NULL,
    pat_id          BIGINT       NOT NULL,
    date_admission  DATE         NOT NULL,
    model           VARCHAR(64)  NOT NULL,
    version         VARCHAR(64)  NOT NULL,
    seq             BIGINT       NOT NULL,
    clock           DATETIME     NOT NULL,
    since           DATETIME     NULL,
    raised_seq      BIGINT       NULL,
    raised_at       DATETIME     NULL,
    rung_at         DATETIME     NULL,
    quiet_until     DATETIME     NULL,
    acknowledged_by VARCHAR(64)  NULL,
    PRIMARY KEY (pat_id, date_admission, model, version, stream),
    UNIQUE (stream, model, version, raised_seq, pat_id, date_admission)
)"""

# For each partition and model version, the last message that has been applied to the alarms.
ALARM_POSITIONS = """
CREATE TABLE IF NOT EXISTS alarm_positions (
    stream         VARCHAR(32)  NOT NULL,
    part           INTEGER      NOT NULL,
    model          VARCHAR(64)  NOT NULL,
    version        VARCHAR(64)  NOT NULL,
    seq            BIGINT       NOT NULL,
    PRIMARY KEY (stream, part, model, version)
)"""

# Alarms that the webhook has not accepted yet.
OUTBOX = """
CREATE TABLE IF NOT EXISTS outbox (
    stream         VARCHAR(32)  NOT NULL,
    seq            BIGINT       NOT NULL,
    model          VARCHAR(64)  NOT NULL,
    version        VARCHAR(64)  NOT NULL,
    PRIMARY KEY (stream, seq, model, version)
)"""

# All discharges; `stays` has only the last one.
DISCHARGES = """
CREATE TABLE IF NOT EXISTS discharges (
    stream         VARCHAR(32)  NOT NULL,
    seq            BIGINT       NOT NULL,
    pat_id         BIGINT       NOT NULL,
    date_admission DATE         NOT NULL,
    happened_at    DATETIME     NOT NULL,
    created_at     DATETIME(3)  NOT NULL,
    PRIMARY KEY (stream, seq),
    UNIQUE (pat_id, date_admission, stream, seq),
    UNIQUE (stream, happened_at, seq)
)"""


def upgrade() -> None:
    if "alarm" not in {column["name"] for column in inspect(op.get_bind()).get_columns("models")}:
        op.execute("ALTER TABLE models ADD COLUMN alarm JSON NULL")
    for table in (ALARMS, ALARM_STATE, ALARM_POSITIONS, OUTBOX, DISCHARGES):
        op.execute(f"{table} {binary()}")
