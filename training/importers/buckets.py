"""Groups the rows of a large table by stay, through temporary files."""

import csv
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

#: The number of files. Each must fit into memory: MIMIC-IV's 40 million vital signs make about 10
#: MB per file.
BUCKETS = 128


def by_stay(rows: Iterable[tuple[int, object, object, object]]) -> Iterator[list[list[str]]]:
    """Yields all rows as texts, in lists; all rows of a stay are in the same list. rows: each row
    starts with the number of its stay. The rows are read once, as a stream.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{number:03}") for number in range(BUCKETS)]
        with ExitStack() as files:
            buckets = [
                csv.writer(files.enter_context(path.open("w", encoding="utf-8", newline="")))
                for path in paths
            ]
            for row in rows:
                buckets[row[0] % BUCKETS].writerow(row)
        for path in paths:
            with path.open(encoding="utf-8", newline="") as lines:
                yield list(csv.reader(lines))
