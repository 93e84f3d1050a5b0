"""Errors of CSV cells."""


class RejectedCell(ValueError):
    """A cell is rejected; the message is the reason, without the value."""


class AnotherOrder(RejectedCell):
    """A date shows that its file has the month first, but DATE_FORMAT is unset."""
