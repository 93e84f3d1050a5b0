"""Rounds features, to remove digits that depend on the order of computation."""

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]

#: Number of significant bits to keep: 30 of 53, which is 9 decimal digits.
BITS = 30
_SPLITTER = 2.0 ** (53 - BITS) + 1
#: Adjacent doubles of this size differ by 2**-30.
_GRID = 1.5 * 2.0 ** (52 - BITS)
#: Larger values are not rounded, because the arithmetic would overflow or lose bits.
LARGEST = 2.0**60


def significant(rows: Rows) -> Rows:
    """Rounds the values to 9 significant digits, and to 9 decimal places; NaN stays NaN. In detail,
    it rounds to 30 significant bits (Veltkamp 1968), then to multiples of 2**-30.

    Sums of the same readings in another order differ in the last bits, and a slope of 0 may be
    computed as 1e-17 or -1e-17. Rounding makes such values equal, so they are on the same side of
    every split of a tree; only values next to a rounding boundary may still differ.

    >>> significant(np.array([36.5, 0.1 + 0.2, 0.3, 1e-17, float("nan")])).tolist()
    [36.5, 0.2999999998137355, 0.2999999998137355, 0.0, nan]
    """
    with np.errstate(over="ignore", invalid="ignore"):
        far = rows * _SPLITTER
        rounded: Rows = far - (far - rows)
        rounded += _GRID
        rounded -= _GRID
    np.copyto(rounded, rows, where=np.abs(rows) >= LARGEST)
    return rounded
