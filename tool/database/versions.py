"""The numbered versions of the tables."""

from pathlib import Path

MIGRATIONS = Path(__file__).parent / "migrations"
# The table with the version, and its name during an upgrade.
TABLE = "alembic_version"
UPGRADING = "upgrading_version"
VERSIONS = sorted(path.name[:4] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))
