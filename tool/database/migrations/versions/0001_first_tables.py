"""The tables of version 1. A database from before versions has them and loses nothing here.

The types are those that MySQL, MariaDB and SQLite all understand, so that a test on one speaks
for the others. `stream` names the input and is part of every key, so two replays never mix.
DATETIME, never TIMESTAMP: de-identified data lives in the years 2100-2200.
"""

from alembic import op

from tool.database.migrations.collation import binary

revision = "0001"
down_revision = None

# Each usable reading, once. The second key is a stay in the order of time: unique by the primary
# key inside it, because a plain index has no common syntax inside CREATE TABLE.
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

# One row per stay; in the ICU while date_discharge is null. The second key finds the patients in
# the ICU, and the last to leave, without reading all stays.
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

# Running statistics of one parameter of a stay: enough for every feature without a window. While
# batches queue up, the tool writes them every few seconds only; `seq` is the last message that a
# row contains. m2 is the sum of squared deviations from the mean (Welford 1962), mean_low the part
# of the mean below its precision; hours_* and covariance concern time, in hours since admission.
# MySQL reserves `last_value` and `first_value`: write them in backticks.
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
# answered, and where it cannot; reason says which.
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

# Messages that cannot be used, as they came, each with its reason.
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

# The last message of each partition that the tables hold, and the last that `vitals` holds.
POSITIONS = """
CREATE TABLE IF NOT EXISTS positions (
    stream         VARCHAR(32)  NOT NULL,
    part           INTEGER      NOT NULL,
    seq            BIGINT       NOT NULL,
    vitals_seq     BIGINT       NOT NULL,
    committed_at   DATETIME(3)  NOT NULL,
    PRIMARY KEY (stream, part)
)"""

# The features that each model reads, as the model API last declared them. The tool computes the
# right features from it while the model API is away.
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
