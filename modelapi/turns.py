"""Keeps slow work from taking all threads of a worker."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from modelapi.api_errors import Busy


class Turns:
    """Lets one thread work at a time, and few wait for it.

    An explanation may take a thousand times as long as a prediction. Two of a worker's four
    threads at most are busy with explanations; the others are left for predictions.
    """

    def __init__(self, waiting: int) -> None:
        self._admitted = threading.BoundedSemaphore(1 + waiting)
        self._turn = threading.Lock()

    @contextmanager
    def take(self) -> Iterator[None]:
        """Raises Busy when enough others wait already."""
        if not self._admitted.acquire(blocking=False):
            raise Busy("Other explanations are waiting; try again later.")
        try:
            with self._turn:
                yield
        finally:
            self._admitted.release()
