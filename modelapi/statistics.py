"""Counts the requests of each model, in one table for all worker processes.

The table is in memory that gunicorn's master shares with its workers. Its lock is a file lock,
which the kernel releases when the holder dies.
"""

import ctypes
import fcntl
import functools
import mmap
import os
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Counter, Histogram

from modelapi.artifact import Ref
from modelapi.metrics import PREDICT_SECONDS, ROWS

MODELS = 1024  # maximum number of versions that are counted


class Counts(ctypes.Structure):
    """The row of one version of a model. *_ns: nanoseconds. last_ms: milliseconds since 1970."""

    _fields_ = [
        ("name", ctypes.c_char * 132),
        *(
            (field, ctypes.c_uint64)
            for field in (
                "success", "success_ns", "fail", "fail_ns", "rows",
                "input_ns", "infer_ns", "output_ns", "last_ms",
            )
        ),
    ]  # fmt: skip


class Statistics:
    """The counts of all models."""

    def __init__(self) -> None:
        self._file, path = tempfile.mkstemp()
        os.unlink(path)
        weakref.finalize(self, os.close, self._file)
        size = ctypes.sizeof(Counts) * MODELS
        os.truncate(self._file, size)
        self._table = (Counts * MODELS).from_buffer(mmap.mmap(self._file, size))
        self._thread_lock = threading.Lock()
        self._rows: dict[Ref, Counts] = {}

    def succeeded(self, ref: Ref, rows: int, times: tuple[int, int, int, int]) -> None:
        """Counts an answered request. times: in ns, at the start, after reading the input, after
        computing the outputs, and after writing the answer.
        """
        start, read, computed, written = times
        with self._row(ref) as counts:
            counts.success += 1
            counts.rows += rows
            counts.success_ns += written - start
            counts.input_ns += read - start
            counts.infer_ns += computed - read
            counts.output_ns += written - computed
            counts.last_ms = time.time_ns() // 1_000_000
        counter, seconds = _metrics(ref)
        counter.inc(rows)
        seconds.observe((computed - read) / 1e9)

    def failed(self, ref: Ref, start: int) -> None:
        """Counts a failed request that began at `start` (ns)."""
        with self._row(ref) as counts:
            counts.fail += 1
            counts.fail_ns += time.perf_counter_ns() - start

    def read(self, ref: Ref) -> dict[str, object]:
        """A model's counts in the format of the statistics extension."""
        with self._row(ref) as c:
            each = {
                "success": (c.success, c.success_ns),
                "fail": (c.fail, c.fail_ns),
                "queue": (c.success, 0),
                "compute_input": (c.success, c.input_ns),
                "compute_infer": (c.success, c.infer_ns),
                "compute_output": (c.success, c.output_ns),
                "cache_hit": (0, 0),
                "cache_miss": (0, 0),
            }
            return {
                "name": ref.model,
                "version": ref.version,
                "last_inference": c.last_ms,
                "inference_count": c.rows,
                "execution_count": c.success,
                "inference_stats": {
                    name: {"count": count, "ns": ns} for name, (count, ns) in each.items()
                },
                "batch_stats": [],
            }

    @contextmanager
    def _row(self, ref: Ref) -> Iterator[Counts]:
        with self._thread_lock:
            fcntl.lockf(self._file, fcntl.LOCK_EX)
            try:
                counts = self._rows.get(ref)
                if counts is None:
                    counts = self._rows[ref] = self._find(str(ref).encode())
                yield counts
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN)

    def _find(self, name: bytes) -> Counts:
        """The model's row, whose place does not change. If no row is free, returns a row that is
        not shared."""
        for counts in self._table:
            if counts.name in (name, b""):
                counts.name = name
                return counts
        return Counts()


@functools.lru_cache(maxsize=MODELS)
def _metrics(ref: Ref) -> tuple[Counter, Histogram]:
    names = ref.model, ref.version
    return ROWS.labels(*names), PREDICT_SECONDS.labels(*names)


@functools.cache
def shared() -> Statistics:
    """The table that this process shares with the processes that are forked from it after the first
    call."""
    return Statistics()
