"""The binary collation of each server, which compares texts byte by byte, including trailing
spaces.
"""

from alembic import op


def binary() -> str:
    """The table option for a binary collation; empty for SQLite, which compares bytes by
    default.
    """
    dialect = op.get_bind().dialect
    if dialect.name == "sqlite":
        return ""
    mariadb = getattr(dialect, "is_mariadb", False)
    return f"CHARACTER SET utf8mb4 COLLATE {'utf8mb4_nopad_bin' if mariadb else 'utf8mb4_0900_bin'}"
