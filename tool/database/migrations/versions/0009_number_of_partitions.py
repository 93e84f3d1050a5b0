"""Version 9: a position names the number of partitions to which it belongs."""

from alembic import op
from sqlalchemy import inspect

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    columns = {column["name"] for column in inspect(op.get_bind()).get_columns("positions")}
    if "partitions" not in columns:
        op.execute("ALTER TABLE positions ADD COLUMN partitions INTEGER NULL")
