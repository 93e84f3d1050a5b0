"""The pipeline's figures: rates, queues, lag, latency, rejected messages."""

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate, pairwise

from dashboard import formats
from dashboard.database import Database
from dashboard.queries import PENDING_LIMIT
from dashboard.queue_state import QueueState
from dashboard.rows import Position
from dashboard.topic import Content, Fields

# Seconds that rates and latencies cover.
WINDOW = 60.0
# Seconds that the throughput curve covers, and seconds between its points.
HISTORY = 600.0
HISTORY_STEP = 5.0
# Maximum number of reasons that are counted separately, because reasons may contain values.
REASONS_KEPT = 1_000
REASONS_SHOWN = 12
OTHER = "other reasons"
# Maximum number of rejected messages counted per round, so that the first round is fast.
REJECTED_CHUNK = 5_000


def safe_seq(positions: list[Position], taken: int | None, parts: Mapping[int, int]) -> int:
    """The message up to which every partition has stored all its messages. taken: the last message
    that the buffer has queued; None if it is unknown. parts: the last message that it has queued
    for each partition. Both must be read before `positions`. A partition that has stored its last
    queued message counts as stored up to `taken`, however old that message is.
    """
    stored = {position.part: position.seq for position in positions}
    if taken is None:
        return min(stored.values(), default=0)
    behind = [
        stored.get(part, 0)
        for part in parts.keys() | stored.keys()
        if part not in parts or stored.get(part, 0) < parts[part]
    ]
    return min([*behind, taken]) if stored else 0


class RejectedCount:
    """Counts rejected messages by reason. Each call reads only those that are not counted yet.

    If some were replayed or forgotten, it counts again; with more than REJECTED_CHUNK messages, it
    does not notice that.
    """

    def __init__(self) -> None:
        self._stream: str | None = None
        self._seq = 0
        self.counts: Counter[str] = Counter()
        self.complete = False

    def read(self, database: Database, stream: str, to: int) -> None:
        """Counts up to message `to`, one chunk per call; sets `complete` when all are counted."""
        if stream != self._stream or self._is_wrong(database, stream):
            self._stream, self._seq, self.counts = stream, 0, Counter()
        rows = database.rejected_after(stream, self._seq, to, REJECTED_CHUNK)
        for _, reason in rows:
            known = reason in self.counts or len(self.counts) < REASONS_KEPT
            self.counts[reason if known else OTHER] += 1
        self.complete = len(rows) < REJECTED_CHUNK
        self._seq = max(self._seq, to) if self.complete else rows[-1][0]

    def _is_wrong(self, database: Database, stream: str) -> bool:
        counted = self.counts.total()
        if counted > REJECTED_CHUNK:
            return False
        return database.rejected_up_to(stream, self._seq, REJECTED_CHUNK + 1) != counted


def quantile(buckets: Mapping[int, int], q: float) -> int | None:
    """The bucket that contains the q-quantile of the counted values; None if nothing is counted.

    >>> quantile({10: 98, 20: 1, 500: 1}, 0.5), quantile({10: 98, 20: 1, 500: 1}, 0.995)
    (10, 500)
    """
    known = sorted((bucket, n) for bucket, n in buckets.items() if n > 0)
    if not known:
        return None
    sums = list(accumulate(n for _, n in known))
    return known[bisect_left(sums, q * sums[-1])][0]


@dataclass(frozen=True)
class Sample:
    """The pipeline's counts at one time. at: seconds of a monotonic clock."""

    at: float
    stream: str | None
    taken: int | None
    stored: int | None
    latency: Mapping[int, int]


class Throughput:
    """Keeps the samples of the last minute and, at larger steps, of the last ten minutes."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque()
        self._history: deque[Sample] = deque(maxlen=int(HISTORY / HISTORY_STEP))

    def add(self, sample: Sample) -> None:
        if self._samples and self._samples[-1].stream != sample.stream:
            self._samples.clear()
            self._history.clear()
        self._samples.append(sample)
        while self._samples and sample.at - self._samples[0].at > WINDOW:
            self._samples.popleft()
        if not self._history or sample.at - self._history[-1].at >= HISTORY_STEP:
            self._history.append(sample)

    def rate(self, name: str, over: float = 10.0) -> float | None:
        """Messages per second over the last `over` seconds. name: `taken` or `stored`."""
        known = [each for each in self._samples if getattr(each, name) is not None]
        if not known:
            return None
        known = [each for each in known if known[-1].at - each.at <= over]
        first, last = known[0], known[-1]
        if last.at <= first.at:
            return None
        return float(max(0, getattr(last, name) - getattr(first, name)) / (last.at - first.at))

    def latency(self) -> dict[int, int]:
        """The number of messages of the last minute, by latency in milliseconds."""
        if len(self._samples) < 2:
            return {}
        first, last = self._samples[0].latency, self._samples[-1].latency
        return {bucket: n - first.get(bucket, 0) for bucket, n in last.items()}

    def lines(self) -> tuple[str, str, float]:
        """The SVG paths of the received and the stored rate, and the top of their axis in messages
        per second. Rate 0 is at y = 100, and the top at y = 0."""
        rates: dict[str, list[tuple[float, float]]] = {"taken": [], "stored": []}
        for before, after in pairwise(self._history):
            for name, line in rates.items():
                old, new = getattr(before, name), getattr(after, name)
                if old is not None and new is not None:
                    ago = after.at - self._history[-1].at
                    line.append((ago, max(0, new - old) / (after.at - before.at)))
        top = max((rate for line in rates.values() for _, rate in line), default=0.0) or 1.0
        paths = (
            "".join(
                f"{'L' if index else 'M'}{ago:.0f} {100 * (1 - rate / top):.0f}"
                for index, (ago, rate) in enumerate(line)
            )
            for line in rates.values()
        )
        return (*paths, top)  # type: ignore[return-value]


def figures(
    throughput: Throughput,
    queues: QueueState,
    stored: int | None,
    now: datetime | None,
    pending: int | None,
    rejected: RejectedCount,
) -> Fields:
    """The figures of the pipeline page as text; a dash stands for an unknown figure. stored: the
    last stored message. now: the newest stored time of the stream.
    """
    latency = throughput.latency()
    counted = sum(rejected.counts.values())
    lag = None
    if queues.taken is not None and stored is not None:
        lag = max(0, queues.taken - stored)
    line_in, line_stored, top = throughput.lines()
    return {
        "in": _rate(throughput.rate("taken") if queues.error is None else None),
        "stored": _rate(throughput.rate("stored") if stored is not None else None),
        "taken.total": _count(queues.taken),
        "stored.total": _count(stored),
        "jobs": _count(None if queues.error else queues.jobs),
        "lag": _count(lag),
        "lag.time": _lag_time(lag, queues.newest, now),
        "pending": _capped(pending),
        "rejected": _count(None if stored is None else counted)
        + ("" if rejected.complete or stored is None else " so far"),
        "p50": _milliseconds(quantile(latency, 0.5)),
        "p99": _milliseconds(quantile(latency, 0.99)),
        "line.in": line_in,
        "line.stored": line_stored,
        "line.top": f"{top:,.0f}/s" if top >= 10 else f"{top:.1f}/s",
    }


def _rate(value: float | None) -> str:
    if value is None:
        return "—"
    return formats.count(round(value)) if value >= 10 else f"{value:.1f}"


def _count(value: int | None) -> str:
    return "—" if value is None else formats.count(value)


def _capped(value: int | None) -> str:
    if value is not None and value > PENDING_LIMIT:
        return f"over {formats.count(PENDING_LIMIT)}"
    return _count(value)


def _milliseconds(value: int | None) -> str:
    return "—" if value is None else formats.count(value)


def _lag_time(lag: int | None, newest: datetime | None, now: datetime | None) -> str:
    if lag is None or now is None:
        return "—"
    if lag == 0:
        return "none"
    if newest is None:
        return "—"
    behind = (newest - now).total_seconds()
    return "none" if behind <= 0 else formats.age(behind / 3600)


def rejected_content(rejected: RejectedCount) -> Content:
    """The most frequent reasons. The keys are ranks, so that a new order does not move rows."""
    shown = rejected.counts.most_common(REASONS_SHOWN)
    rest = sum(rejected.counts.values()) - sum(n for _, n in shown)
    if rest:
        shown.append((f"{len(rejected.counts) - len(shown)} further reasons", rest))
    return {
        f"reason:{index}": {"reason": reason, "count": formats.count(n)}
        for index, (reason, n) in enumerate(shown)
    }
