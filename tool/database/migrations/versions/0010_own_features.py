"""Version 10: a prediction may refer to the features of another version's prediction that has only
some of its features.

`features` is then an object with the others, by their place; see `wire.stored_features`.
"""

from alembic import op

from tool.database.migrations.collation import binary

revision = "0010"
down_revision = "0009"

# One row per value. The inner joins find the prediction that has the array, and its model. Neither
# an array nor null has a member with the place as its name.
VIEW = """
SELECT p.stream, p.seq, p.model, p.version, {name} AS feature, COALESCE({own}, v.value) AS value
FROM predictions p
JOIN predictions q ON q.stream = p.stream AND q.seq = p.seq
    AND q.model = COALESCE(p.features_model, p.model)
    AND q.version = COALESCE(p.features_version, p.version)
JOIN models m ON m.model = p.model AND m.version = p.version
JOIN models o ON o.model = q.model AND o.version = q.version
{names}
{others}
{values}
WHERE q.features LIKE '[%'"""
OF_SQLITE = {
    "name": "json_extract(n.value, '$.name')",
    "own": "json_extract(p.features, '$.\"' || n.key || '\"')",
    "names": "JOIN json_each(m.features) n",
    "others": "LEFT JOIN json_each(o.features) k"
    " ON CASE WHEN p.features_model IS NULL THEN k.key = n.key"  # faster
    " ELSE json_extract(k.value, '$.name') = json_extract(n.value, '$.name') END",
    "values": "LEFT JOIN json_each(q.features) v ON v.key = k.key",
}
NAMES = (
    "JSON_TABLE({}.features, '$[*]' COLUMNS"
    " (place FOR ORDINALITY, name VARCHAR(255) {{binary}} PATH '$.name'))"
)
OF_MYSQL = {
    "name": "n.name",
    # The text of a JSON null is 'null'.
    "own": "CAST(NULLIF(JSON_UNQUOTE(JSON_EXTRACT(p.features,"
    " CONCAT('$.\"', n.place - 1, '\"'))), 'null') AS DOUBLE)",
    "names": f"JOIN {NAMES.format('m')} n",
    "others": f"LEFT JOIN {NAMES.format('o')} k ON k.name = n.name",
    "values": "LEFT JOIN JSON_TABLE(q.features, '$[*]' COLUMNS"
    " (place FOR ORDINALITY, value DOUBLE PATH '$')) v ON v.place = k.place",
}


def upgrade() -> None:
    op.execute("DROP VIEW IF EXISTS prediction_features")
    if op.get_bind().dialect.name == "sqlite":
        op.execute(f"CREATE VIEW prediction_features AS {VIEW.format(**OF_SQLITE)}")
    else:
        view = VIEW.format(**OF_MYSQL).replace("{binary}", binary())
        op.execute(f"CREATE SQL SECURITY INVOKER VIEW prediction_features AS {view}")
