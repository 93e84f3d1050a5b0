"""Errors of CSV cells."""


class RejectedCell(ValueError):
    """The cell is rejected. The text is the reason, without the value."""


class AnotherOrder(RejectedCell):
    """The date shows that the file has the month first, but DATE_FORMAT is unset."""
