"""Version 5: a prediction's features as an array, in the order of `models`, and a view with names.

Copies the predictions into a new table. An interrupted copy starts again.
"""

import json
from collections.abc import Iterator
from typing import Any

from alembic import op
from sqlalchemy import inspect, text

from tool.database.migrations.collation import binary

revision = "0005"
down_revision = "0004"

# Messages copied at a time.
STEP = 2_000
# features: a JSON array, in the order of the version's row in `models`. It is null if another
# prediction for the same reading has the array; features_model and features_version name the
# version of that prediction.
PREDICTIONS = """
CREATE TABLE new_predictions (
    stream           VARCHAR(32)  NOT NULL,
    seq              BIGINT       NOT NULL,
    model            VARCHAR(64)  NOT NULL,
    version          VARCHAR(64)  NOT NULL,
    pat_id           BIGINT       NOT NULL,
    date_admission   DATE         NOT NULL,
    measured_at      DATETIME     NOT NULL,
    features         MEDIUMTEXT   NULL,
    probability      DOUBLE       NULL,
    reason           VARCHAR(255) NULL,
    created_at       DATETIME(3)  NOT NULL,
    features_model   VARCHAR(64)  NULL,
    features_version VARCHAR(64)  NULL,
    PRIMARY KEY (stream, seq, model, version)
)"""
# One row per value. The inner join finds the prediction whose row holds the features.
VIEW = """
SELECT p.stream, p.seq, p.model, p.version, {name} AS feature, v.value
FROM predictions p
JOIN predictions q ON q.stream = p.stream AND q.seq = p.seq
    AND q.model = COALESCE(p.features_model, p.model)
    AND q.version = COALESCE(p.features_version, p.version)
JOIN models m ON m.model = p.model AND m.version = p.version
{names}
{values}
WHERE q.features LIKE '[%'"""
OF_SQLITE = {
    "name": "json_extract(n.value, '$.name')",
    "names": "JOIN json_each(m.features) n",
    "values": "JOIN json_each(q.features) v ON v.key = n.key",
}
OF_MYSQL = {
    "name": "n.name",
    "names": "JOIN JSON_TABLE(m.features, '$[*]' COLUMNS"
    " (place FOR ORDINALITY, name VARCHAR(255) {binary} PATH '$.name')) n",
    "values": "JOIN JSON_TABLE(q.features, '$[*]' COLUMNS"
    " (place FOR ORDINALITY, value DOUBLE PATH '$')) v ON v.place = n.place",
}
OTHER_FEATURES = "the model reads other features now"


def upgrade() -> None:
    columns = {column["name"] for column in inspect(op.get_bind()).get_columns("predictions")}
    if "features_model" not in columns:
        op.execute("DROP TABLE IF EXISTS new_predictions")
        op.execute(f"{PREDICTIONS} {binary()}")
        _copy()
        _swap()
    op.execute("DROP TABLE IF EXISTS old_predictions")
    op.execute("DROP VIEW IF EXISTS prediction_features")
    if op.get_bind().dialect.name == "sqlite":
        op.execute(f"CREATE VIEW prediction_features AS {VIEW.format(**OF_SQLITE)}")
    else:
        view = VIEW.format(**OF_MYSQL).replace("{binary}", binary())
        op.execute(f"CREATE SQL SECURITY INVOKER VIEW prediction_features AS {view}")


def _swap() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute("ALTER TABLE predictions RENAME TO old_predictions")
        op.execute("ALTER TABLE new_predictions RENAME TO predictions")
    else:
        # One statement renames both tables, so the change is atomic.
        op.execute("RENAME TABLE predictions TO old_predictions, new_predictions TO predictions")


def _copy() -> None:
    bind = op.get_bind()
    names = {
        (model, version): [feature["name"] for feature in _parsed(features)]
        for model, version, features in bind.execute(
            text("SELECT model, version, features FROM models")
        )
    }
    for rows in _chunks(bind):
        new = [row | _converted(row, names) for row in map(dict, rows)]
        marks = ", ".join(f":{column}" for column in new[0])
        bind.execute(
            text(f"INSERT INTO new_predictions ({', '.join(new[0])}) VALUES ({marks})"), new
        )
        if lost := [row for row in new if row["reason"] == OTHER_FEATURES]:
            where = " AND ".join(f"{key} = :{key}" for key in ("stream", "seq", "model", "version"))
            bind.execute(text(f"DELETE FROM pending WHERE {where}"), lost)
        if bind.dialect.name != "sqlite":
            bind.exec_driver_sql("COMMIT")


def _chunks(bind: Any) -> Iterator[Any]:
    streams = "SELECT stream, MIN(seq), MAX(seq) FROM predictions GROUP BY stream"
    some = text("SELECT * FROM predictions WHERE stream = :stream AND seq BETWEEN :first AND :last")
    for stream, first, last in bind.execute(text(streams)).all():
        for start in range(first, last + 1, STEP):
            place = {"stream": stream, "first": start, "last": start + STEP - 1}
            if rows := bind.execute(some, place).mappings().all():
                yield rows


def _converted(row: dict[str, Any], names: dict[tuple[str, str], list[str]]) -> dict[str, Any]:
    """The new values of the columns that change.

    Features lose their names only if they are those that `models` lists for the model.
    """
    features = _parsed(row["features"])
    wanted = names.get((row["model"], row["version"]))
    if wanted is not None and features.keys() == set(wanted):
        array = [features[name] for name in wanted]
        return {"features": json.dumps(array, separators=(",", ":"))}
    lost = {"reason": OTHER_FEATURES} if row["probability"] is None else {}
    return {"features": json.dumps(features)} | lost


def _parsed(cell: Any) -> Any:
    """Parses JSON as a driver returns it."""
    return json.loads(cell) if isinstance(cell, str | bytes | bytearray) else cell
