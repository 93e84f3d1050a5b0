"""The tables of version 1. An unversioned database already has them and is not changed.

MySQL, MariaDB and SQLite all support these types, so the statements are the same for all three.
`stream` is part of every key except that of `models`, so that two replays never mix. The type of
times is DATETIME and not TIMESTAMP, because de-identified data is in the years 2100-2200.
"""

from alembic import op

from tool.database.migrations.collation import binary

revision = "0001"
down_revision = None

# Each accepted reading, once. The second key orders the readings of a stay by time. It is UNIQUE,
# because a plain index has no common syntax inside CREATE TABLE.
READINGS = """
CREATE TABLE IF NOT EXISTS readings (
    stream         VARCHAR(32)  NOT NULL,
    seq            BIGINT       NOT NULL,
    pat_id         BIGINT       NOT NULL,
    date_admission DATE         NOT NULL,
    measured_at    DATETIME     NOT NULL,
    parameter      VARCHAR(64)  NOT NULL,
    value          DOUBLE       NOT NULL,
    PRIMARY KEY (stream, seq),
    UNIQUE (pat_id, date_admission, stream, measured_at, seq)
)"""

# One row per stay. The patient is in the ICU while date_discharge is null. The second key finds the
# patients in the ICU and the latest discharges without a scan.
STAYS = """
CREATE TABLE IF NOT EXISTS stays (
    stream         VARCHAR(32)  NOT NULL,
    pat_id         BIGINT       NOT NULL,
    date_admission DATE         NOT NULL,
    age            DOUBLE       NULL,
    date_discharge DATE         NULL,
    PRIMARY KEY (pat_id, date_admission, stream),
    UNIQUE (stream, date_discharge, date_admission, pat_id)
)"""

# Running statistics of one parameter of a stay, sufficient for every feature without a window.
# While batches queue up, the tool writes them only every few seconds; `seq` is the last message
# that a row includes. m2 is the sum of squared deviations from the mean (Welford 1962). mean_low is
# the part of the mean that is lost in the precision of `mean`. hours_* and covariance are
# statistics of the time, in hours since midnight of the day of admission. MySQL reserves
# `last_value` and `first_value`: write them in backticks.
VITALS = """
CREATE TABLE IF NOT EXISTS vitals (
    stream         VARCHAR(32)  NOT NULL,
    pat_id         BIGINT       NOT NULL,
    date_admission DATE         NOT NULL,
    parameter      VARCHAR(64)  NOT NULL,
    n              BIGINT       NOT NULL,
    mean           DOUBLE       NOT NULL,
    m2             DOUBLE       NOT NULL,
    minimum        DOUBLE       NOT NULL,
    maximum        DOUBLE       NOT NULL,
    `first_value`  DOUBLE       NOT NULL,
    first_at       DATETIME     NOT NULL,
    `last_value`   DOUBLE       NOT NULL,
    last_at        DATETIME     NOT NULL,
    hours_mean     DOUBLE       NOT NULL,
    hours_m2       DOUBLE       NOT NULL,
    covariance     DOUBLE       NOT NULL,
    mean_low       DOUBLE       NOT NULL,
    seq            BIGINT       NOT NULL,
    PRIMARY KEY (pat_id, date_admission, parameter, stream)
)"""

# One row per model and reading of a stay in the ICU. probability is null while the model has not
# answered, or if it cannot answer; reason names the cause.
PREDICTIONS = """
CREATE TABLE IF NOT EXISTS predictions (
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
    PRIMARY KEY (stream, seq, model)
)"""

# Predictions that wait for their model.
PENDING = """
CREATE TABLE IF NOT EXISTS pending (
    stream         VARCHAR(32)  NOT NULL,
    seq            BIGINT       NOT NULL,
    model          VARCHAR(64)  NOT NULL,
    PRIMARY KEY (stream, seq, model)
)"""

# Rejected messages, each with its reason.
REJECTED = """
CREATE TABLE IF NOT EXISTS rejected (
    stream         VARCHAR(32)  NOT NULL,
    seq            BIGINT       NOT NULL,
    pat_id         BIGINT       NULL,
    reason         VARCHAR(255) NOT NULL,
    message        MEDIUMTEXT   NOT NULL,
    rejected_at    DATETIME(3)  NOT NULL,
    PRIMARY KEY (stream, seq),
    UNIQUE (pat_id, stream, seq)
)"""

# The last stored message of each partition, and the last one that `vitals` includes.
POSITIONS = """
CREATE TABLE IF NOT EXISTS positions (
    stream         VARCHAR(32)  NOT NULL,
    part           INTEGER      NOT NULL,
    seq            BIGINT       NOT NULL,
    vitals_seq     BIGINT       NOT NULL,
    committed_at   DATETIME(3)  NOT NULL,
    PRIMARY KEY (stream, part)
)"""

# The features of each model, as last declared by the model API. While the model API is unavailable,
# the tool reads from this table which features to compute.
MODELS = """
CREATE TABLE IF NOT EXISTS models (
    model          VARCHAR(64)  NOT NULL,
    version        VARCHAR(64)  NOT NULL,
    role           VARCHAR(16)  NOT NULL,
    features       JSON         NOT NULL,
    seen_at        DATETIME(3)  NOT NULL,
    PRIMARY KEY (model, version)
)"""


def upgrade() -> None:
    for table in (READINGS, STAYS, VITALS, PREDICTIONS, PENDING, REJECTED, POSITIONS, MODELS):
        op.execute(f"{table} {binary()}")
