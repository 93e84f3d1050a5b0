"""Translates the errors of Redis and of the databases into words for the pages. The logs have the
original texts, which may contain addresses.
"""

import re

# The first pattern that matches the text of an error counts.
FAULTS = (
    (r"refused|gone away|lost connection|not connected|reset by peer|closed", "does not answer"),
    (r"connecting to|can.?t connect|cannot connect|unreachable|broken pipe", "does not answer"),
    (r"shutdown in progress|unknown .*server host", "does not answer"),
    (
        r"command denied|denied .*to database|noperm|no permission",
        "gives the user too few rights",
    ),
    (r"denied|wrongpass|noauth|authenticat|password", "refuses the log-in"),
    (r"is blocked|not allowed to connect", "refuses the log-in"),
    (r"\blocked|deadlock|lock wait", "is locked by another program"),
    (r"time.?out|timed out|in time|interrupted|execution time", "does not answer in time"),
    (r"is full|no space left|quota", "has no disk space left"),
    (r"too many connections|max number of clients", "has too many connections"),
    (r"loading", "is still starting"),
    (r"(no such|unknown) column", "has tables of another version"),
    (r"no such table|doesn.?t exist|unknown database", "has no tables yet"),
    (r"unable to open", "does not exist yet"),
    (r"read.?only", "is read-only"),
    (r"malformed|not a database|corrupt|disk i/o", "reports a damaged file"),
)


def fault(error: str) -> str:
    """The error in words that continue a sentence about its server.

    >>> fault("Error 111 connecting to 127.0.0.1:6379. Connection refused.")
    'does not answer'
    >>> fault("1045 (28000): Access denied for user 'dashboard'@'10.0.0.7' (using password: YES)")
    'refuses the log-in'
    >>> fault("database or disk is full"), fault("1114 (HY000): The table 'readings' is full")
    ('has no disk space left', 'has no disk space left')
    """
    found = (words for pattern, words in FAULTS if re.search(pattern, error, re.IGNORECASE))
    return next(found, "reports an error")
