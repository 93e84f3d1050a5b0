"""Version 7: the alarm states contain the time of the stay's first prediction. For stays that are
already stored, it is the time of the first reading.
"""

from alembic import op
from sqlalchemy import inspect

revision = "0007"
down_revision = "0006"

FILL = """
UPDATE alarm_state SET first_at = (
    SELECT MIN(r.measured_at) FROM readings r
    WHERE r.pat_id = alarm_state.pat_id AND r.date_admission = alarm_state.date_admission
        AND r.stream = alarm_state.stream
) WHERE first_at IS NULL"""


def upgrade() -> None:
    columns = {column["name"] for column in inspect(op.get_bind()).get_columns("alarm_state")}
    if "first_at" not in columns:
        op.execute("ALTER TABLE alarm_state ADD COLUMN first_at DATETIME NULL")
    op.execute(FILL)
