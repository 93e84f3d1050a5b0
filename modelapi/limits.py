"""The limits of one request.

At these limits a request to a shipped model that is loaded takes at most 0.6 seconds of CPU time
and 80 MB of memory. An uncompiled scikit-learn model may take longer per row.
"""

from modelapi.api_errors import TooLarge

# Bytes of a body, packed and unpacked. nginx has the same limit.
BODY = 8 * 1024 * 1024
# Bytes of a body that asks for a change of the models.
SMALL_BODY = 64 * 1024
ROWS = 100_000
# Rows times features.
VALUES = 1_000_000


def require_size(rows: int, features: int) -> None:
    """Raises TooLarge if a request has too many rows, or too many values."""
    most = min(ROWS, VALUES // features)
    if rows > most:
        raise TooLarge(f"Takes at most {most} rows of {features} features, not {rows}.")
