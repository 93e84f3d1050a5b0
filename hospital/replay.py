"""Reads all_data.csv as server-sent events, from any position, in constant memory."""

import hashlib
import json
import os
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Protocol, Self

BLOCK = 20_000  # bytes of CSV that are rendered at a time; they give about 55 kB of events
CACHED = 20_000  # maximum number of stays in the cache, which takes about 8 MB


class Source(Protocol):
    """A stream of numbered messages that `/sub` can serve.

    stream: its name. end: the number of its last message. `events(after)` yields lists of the
    server-sent events of the messages after + 1, after + 2 and so on.
    """

    stream: str
    end: int

    def events(self, after: int) -> Iterator[list[str]]: ...


class Replay:
    """The source that reads the messages from all_data.csv, in one replay mode.

    stream: a fingerprint of the input, the mode and the number of the replay, with the prefix
    `synthetic-` for a synthetic ward. rejected: for each file, the number of its rows in
    rejected.csv. Any number of readers can read events at the same time. The file is opened once,
    so replacing it on disk does not affect a running replay. Raises OSError, ValueError or KeyError
    if all_data.json is missing or invalid.
    """

    def __init__(self, folder: Path, mode: str, number: int = 1) -> None:
        index = json.loads((folder / "all_data.json").read_text(encoding="utf-8"))
        live = mode == "live"
        again = str(number) if number > 1 else ""
        fingerprint = hashlib.sha256((index["sha256"] + mode + again).encode()).hexdigest()[:8]
        self.synthetic: bool = index.get("synthetic", False)
        self.stream = f"synthetic-{fingerprint}" if self.synthetic else fingerprint
        self.end: int = index["messages"] - (0 if live else index["discharges"])
        self.rejected: Counter[str] = Counter()  # rows by file
        for reason, rows in index.get("rejected", {}).items():
            self.rejected[reason.partition(":")[0]] += rows
        self._offsets: list[int] = [entry[0] for entry in index["offsets"]]
        self._before: list[int] = [entry[1 if live else 2] for entry in index["offsets"]]
        self._live = live
        self._stays = _Cache(partial(_stay_fields, live=live))
        self._names = _Cache(json.dumps)
        self._file = (folder / "all_data.csv").open("rb")
        self._size = os.fstat(self._file.fileno()).st_size
        columns = self._file.readline().decode().rstrip("\n").split(";")
        self._with_minutes = "minute" in columns

    def events(self, after: int) -> Iterator[list[str]]:
        """Yields lists of some hundred events: those of messages after + 1, after + 2 and so on.

        From any position, the first list takes a few milliseconds.
        """
        nearest = bisect_right(self._before, after) - 1
        if nearest < 0:  # no messages
            return
        position, seq = self._offsets[nearest], self._before[nearest]
        while position < self._size:
            block = self._block(position)
            position += len(block)
            events = self._render(block[:-1].decode(), seq)
            known = max(0, after - seq)
            seq += len(events)
            if known < len(events):
                yield events[known:]

    def _block(self, position: int) -> bytes:
        """Reads whole lines from `position` on, with pread, because all subscribers share one open
        file."""
        size = BLOCK
        while True:
            block = os.pread(self._file.fileno(), size, position)
            if end := block.rfind(b"\n") + 1:
                return block[:end]
            if len(block) < size:
                raise ValueError(f"{self._file.name} was cut short at byte {position}")
            size *= 2

    def _render(self, lines: str, seq: int) -> list[str]:
        # This is hospital's hot loop: about 0.7 µs per message. The fields of a stay are cached.
        # Numbers and dates are copied, because they are valid JSON in the file.
        stream, live, stays, names = self.stream, self._live, self._stays, self._names
        events = []
        for line in lines.split("\n"):
            if self._with_minutes:
                stay, day, hour, minute, second, parameter, value = line.rsplit(";", 6)
                if minute != "0" or second != "0":
                    hour = hour and f'{hour},"minute":{minute},"second":{second}'
            else:
                stay, day, hour, parameter, value = line.rsplit(";", 4)
            if parameter:
                seq += 1
                events.append(
                    f'id: {stream}-{seq}\ndata: {stays[stay]}"day":"{day}","hour":{hour},'
                    f'"parameter":{names[parameter]},"value":{value or "null"}}}\n\n'
                )
            elif live or stay.startswith("a"):
                seq += 1
                clock = hour and f',"hour":{hour}'
                events.append(f'id: {stream}-{seq}\ndata: {stays[stay]}"day":"{day}"{clock}}}\n\n')
        return events

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _stay_fields(stay: str, live: bool) -> str:
    """Renders the columns from `type` to `date_discharge` or `place` as the first JSON fields."""
    kind, pat_id, age, admission, discharge, *names = stay.split(";")
    fields = (
        f'{{"type":"{kind}","pat_id":{pat_id},"age":{age or "null"},"date_admission":"{admission}",'
    )
    if kind == "admission":
        known = zip(("identifier", "place"), names, strict=True)
        return fields + "".join(f'"{key}":{json.dumps(text)},' for key, text in known if text)
    shown = discharge and (kind == "discharge" or not live)
    return f'{fields}"date_discharge":{json.dumps(discharge) if shown else "null"},'


class _Cache(dict[str, str]):
    """Caches the results of `make`. A lookup takes a third of the time of functools.lru_cache."""

    def __init__(self, make: Callable[[str], str]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: str) -> str:
        if len(self) >= CACHED:
            self.clear()
        self[key] = text = self._make(key)
        return text
