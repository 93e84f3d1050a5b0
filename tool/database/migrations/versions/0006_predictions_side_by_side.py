"""Version 6: a view of the champion's predictions beside those of the other models."""

from alembic import op

revision = "0006"
down_revision = "0005"

# One row per reading and per version that is not the champion.
VIEW = """
SELECT c.stream, c.seq, c.pat_id, c.date_admission, c.measured_at,
    c.model AS champion, c.version AS champion_version, c.probability AS champion_probability,
    o.model, o.version, o.probability, o.probability - c.probability AS difference
FROM models m
JOIN predictions c ON c.model = m.model AND c.version = m.version
JOIN predictions o ON o.stream = c.stream AND o.seq = c.seq
    AND (o.model <> c.model OR o.version <> c.version)
WHERE m.role = 'champion'"""


def upgrade() -> None:
    op.execute("DROP VIEW IF EXISTS predictions_side_by_side")
    invoker = "" if op.get_bind().dialect.name == "sqlite" else "SQL SECURITY INVOKER "
    op.execute(f"CREATE {invoker}VIEW predictions_side_by_side AS {VIEW}")
