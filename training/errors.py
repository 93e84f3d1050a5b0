"""The base class of the errors that a command reports instead of a traceback."""


class TrainingError(Exception):
    """The work cannot be done; each line of the message is for the user."""
