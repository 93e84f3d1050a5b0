"""The limits of one request.

With a shipped model that is loaded, a request at these limits takes at most 0.6 seconds of CPU time
and 80 MB of memory. An uncompiled scikit-learn model may take longer per row.
"""

from modelapi.api_errors import TooLarge

# Maximum bytes of a body, packed and unpacked. nginx has the same limit.
BODY = 8 * 1024 * 1024
# Maximum bytes of a body that requests a change of the models.
SMALL_BODY = 64 * 1024
# Maximum number of rows.
ROWS = 100_000
# Maximum number of values: rows times features.
VALUES = 1_000_000
# Maximum number of inference requests in one body.
REQUESTS = 32


def require_size(rows: int, features: int) -> None:
    """Raises TooLarge if a request has too many rows, or too many values."""
    most = min(ROWS, VALUES // features)
    if rows > most:
        raise TooLarge(f"A request may have {most} rows of {features} features, not {rows}.")
