"""Errors of the database."""


class DatabaseError(Exception):
    """Base class: the database did not execute a request."""


class Unavailable(DatabaseError):
    """The database is unavailable or busy; a retry can succeed."""


class Outdated(Unavailable):
    """A newer version of the program has upgraded the tables, so this process must end."""


class PermanentFailure(DatabaseError):
    """A retry cannot succeed: the rows are invalid, or this program cannot use the tables."""


class Moved(DatabaseError):
    """Another process has already written these rows, or changed those they were computed from."""
