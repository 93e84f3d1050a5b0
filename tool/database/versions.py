"""The numbered versions of the tables."""

from pathlib import Path

MIGRATIONS = Path(__file__).parent / "migrations"
VERSIONS = sorted(path.name[:4] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))
