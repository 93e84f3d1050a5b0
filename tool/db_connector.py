"""The old name of `tool.database`, until its last user has moved."""

from tool.database import (  # noqa: F401
    Changes,
    Database,
    DatabaseError,
    Moved,
    Refused,
    Unavailable,
    connect,
)
