"""Why a cell cannot be used."""


class Refused(ValueError):
    """A cell cannot be used; the message is one of few reasons, without the value."""


class AnotherOrder(Refused):
    """A date shows that its file is not written day first, and DATE_FORMAT is unset."""
