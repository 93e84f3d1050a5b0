"""A progress bar in the terminal, with an estimate of the time left."""

from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")

# Seconds until the bar appears, so that a short step shows none.
DELAY = 2.0


def progress(items: Iterable[T], step: str, total: int | None = None) -> Iterable[T]:
    """Yields the items, and shows a progress bar if the output is a terminal."""
    bar: Iterable[T] = tqdm(
        items, step, total, leave=False, delay=DELAY, disable=None, dynamic_ncols=True
    )
    return bar
