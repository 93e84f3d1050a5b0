"""Version 8: a score is not stored as a probability.

The output of a model is a probability or, for a score, points / `models.maximum`. MAXIMA has the
shipped scores. The maximum of any other score is stored when the model API declares it.
"""

from alembic import op
from sqlalchemy import inspect

revision = "0008"
down_revision = "0007"

MAXIMA = {("news2", "2017"): 20, ("qsofa", "2016"): 3}
# One row per prediction.
OUTPUTS = """
SELECT p.stream, p.seq, p.model, p.version, p.pat_id, p.date_admission, p.measured_at,
    CASE WHEN m.maximum IS NULL THEN p.output END AS probability,
    ROUND(p.output * m.maximum) AS score, m.maximum, p.reason, p.created_at
FROM predictions p
JOIN models m ON m.model = p.model AND m.version = p.version"""
# One row per reading and per version that is not the champion.
SIDE_BY_SIDE = """
SELECT c.stream, c.seq, c.pat_id, c.date_admission, c.measured_at,
    c.model AS champion, c.version AS champion_version,
    CASE WHEN m.maximum IS NULL THEN c.output END AS champion_probability,
    ROUND(c.output * m.maximum) AS champion_score,
    o.model, o.version,
    CASE WHEN n.maximum IS NULL THEN o.output END AS probability,
    ROUND(o.output * n.maximum) AS score,
    CASE WHEN m.maximum IS NULL AND n.maximum IS NULL THEN o.output - c.output END AS difference
FROM models m
JOIN predictions c ON c.model = m.model AND c.version = m.version
JOIN predictions o ON o.stream = c.stream AND o.seq = c.seq
    AND (o.model <> c.model OR o.version <> c.version)
JOIN models n ON n.model = o.model AND n.version = o.version
WHERE m.role = 'champion'"""


def upgrade() -> None:
    op.execute("DROP VIEW IF EXISTS predictions_side_by_side")
    for table in ("predictions", "alarms"):
        if "output" not in _columns(table):
            op.execute(f"ALTER TABLE {table} RENAME COLUMN probability TO output")
    if "maximum" not in _columns("models"):
        op.execute("ALTER TABLE models ADD COLUMN maximum BIGINT NULL")
    for (model, version), maximum in MAXIMA.items():
        of_model = f"model = '{model}' AND version = '{version}'"
        op.execute(f"UPDATE models SET maximum = {maximum} WHERE {of_model}")
    _view("prediction_outputs", OUTPUTS)
    _view("predictions_side_by_side", SIDE_BY_SIDE)


def _columns(table: str) -> set[str]:
    return {column["name"] for column in inspect(op.get_bind()).get_columns(table)}


def _view(name: str, query: str) -> None:
    op.execute(f"DROP VIEW IF EXISTS {name}")
    invoker = "" if op.get_bind().dialect.name == "sqlite" else "SQL SECURITY INVOKER "
    op.execute(f"CREATE {invoker}VIEW {name} AS {query}")
