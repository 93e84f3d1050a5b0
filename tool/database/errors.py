"""Errors of the database."""


class DatabaseError(Exception):
    """The database did not carry out a request."""


class Unavailable(DatabaseError):
    """The database is away or busy; the same request can succeed later."""


class Refused(DatabaseError):
    """The database does not accept these rows or these tables; a retry does not help."""


class Moved(DatabaseError):
    """The partition is no longer at the position that the batch was computed from."""
