"""Version 4: the drift of inputs and predictions, per stream day."""

from alembic import op

from tool.database.migrations.collation import binary

revision = "0004"
down_revision = "0003"

# seq: readings of later days come after this message.
DRIFT = """
CREATE TABLE IF NOT EXISTS drift (
    stream         VARCHAR(32)  NOT NULL,
    day            DATE         NOT NULL,
    model          VARCHAR(64)  NOT NULL,
    version        VARCHAR(64)  NOT NULL,
    parameter      VARCHAR(64)  NOT NULL,
    figure         VARCHAR(32)  NOT NULL,
    stays          BIGINT       NOT NULL,
    value          DOUBLE       NULL,
    low            DOUBLE       NULL,
    high           DOUBLE       NULL,
    seq            BIGINT       NOT NULL,
    PRIMARY KEY (stream, day, model, version, parameter, figure)
)"""


def upgrade() -> None:
    op.execute(f"{DRIFT} {binary()}")
