"""How each server is asked to compare texts byte for byte, trailing spaces included."""

from alembic import op


def binary() -> str:
    """The table option; SQLite compares bytes without one."""
    dialect = op.get_bind().dialect
    if dialect.name == "sqlite":
        return ""
    mariadb = getattr(dialect, "is_mariadb", False)
    return f"CHARACTER SET utf8mb4 COLLATE {'utf8mb4_nopad_bin' if mariadb else 'utf8mb4_0900_bin'}"
