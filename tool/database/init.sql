-- The tables of ICU Stream. One file for MySQL, MariaDB and SQLite, so that a
-- test on one speaks for the others: only what all three understand is used.
--
-- `stream` is part of every key. It names the input (another set of CSVs is
-- another stream), so two replays never mix their statistics.
-- DATETIME, never TIMESTAMP: de-identified data lives in the years 2100-2200.

-- Every usable reading, once.
CREATE TABLE IF NOT EXISTS readings (
    stream         VARCHAR(32)  NOT NULL,
    seq            BIGINT       NOT NULL,
    pat_id         BIGINT       NOT NULL,
    date_admission DATE         NOT NULL,
    measured_at    DATETIME     NOT NULL,
    parameter      VARCHAR(64)  NOT NULL,
    value          DOUBLE       NOT NULL,
    PRIMARY KEY (stream, seq),
    -- A stay in the order of time. Unique by the primary key within it; written
    -- this way because a plain index has no common syntax inside CREATE TABLE.
    UNIQUE (pat_id, date_admission, stream, measured_at, seq)
);

-- One row a stay. In the ICU while date_discharge is null.
CREATE TABLE IF NOT EXISTS stays (
    stream         VARCHAR(32)  NOT NULL,
    pat_id         BIGINT       NOT NULL,
    date_admission DATE         NOT NULL,
    age            DOUBLE       NULL,
    date_discharge DATE         NULL,
    PRIMARY KEY (pat_id, date_admission, stream),
    -- Who is in the ICU, and who left last, without a look at all who ever were.
    UNIQUE (stream, date_discharge, date_admission, pat_id)
);

-- Running statistics of a stay's parameter: enough for every feature without a
-- window. While batches queue up they are written every few seconds only, so
-- `seq` says how far a row has come: the stay's later messages are not in it yet.
-- m2 is the sum of squared deviations from the mean (Welford 1962);
-- hours_* and covariance are the same for time, in hours since admission. Two names are
-- reserved words in MySQL: write `last_value` and `first_value` in backticks.
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
    mean_low       DOUBLE       NOT NULL, -- what `mean` cannot hold of itself (compensation)
    seq            BIGINT       NOT NULL,
    PRIMARY KEY (pat_id, date_admission, parameter, stream)
);

-- One row a model and reading of a stay in the ICU. probability is null while
-- the model has not answered, and where there is none; reason says which.
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
);

-- Predictions that wait for their model: filled in and removed when it answers.
CREATE TABLE IF NOT EXISTS pending (
    stream         VARCHAR(32)  NOT NULL,
    seq            BIGINT       NOT NULL,
    model          VARCHAR(64)  NOT NULL,
    PRIMARY KEY (stream, seq, model)
);

-- Messages that could not be used, as they came, each with its reason.
CREATE TABLE IF NOT EXISTS rejected (
    stream         VARCHAR(32)  NOT NULL,
    seq            BIGINT       NOT NULL,
    pat_id         BIGINT       NULL,
    reason         VARCHAR(255) NOT NULL,
    message        MEDIUMTEXT   NOT NULL,
    rejected_at    DATETIME(3)  NOT NULL,
    PRIMARY KEY (stream, seq),
    UNIQUE (pat_id, stream, seq)
);

-- The last message of each partition that is in the tables above, and the last
-- whose reading is in `vitals` too.
CREATE TABLE IF NOT EXISTS positions (
    stream         VARCHAR(32)  NOT NULL,
    part           INTEGER      NOT NULL,
    seq            BIGINT       NOT NULL,
    vitals_seq     BIGINT       NOT NULL,
    committed_at   DATETIME(3)  NOT NULL,
    PRIMARY KEY (stream, part)
);

-- What each model asks for, as last learned from the model API, so that
-- features are right even while the model API is away.
CREATE TABLE IF NOT EXISTS models (
    model          VARCHAR(64)  NOT NULL,
    version        VARCHAR(64)  NOT NULL,
    role           VARCHAR(16)  NOT NULL,
    features       JSON         NOT NULL,
    seen_at        DATETIME(3)  NOT NULL,
    PRIMARY KEY (model, version)
);
