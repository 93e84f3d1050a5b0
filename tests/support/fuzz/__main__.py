"""Fuzzes one target in ten parts, each with its own seed. Prints the counts, the CPU time and the
peak memory of each part.
"""

import argparse
import logging
import random
import resource
import sys
import time

from tests.support.fuzz.targets import TARGETS

PARTS = 10


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.support.fuzz", description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logging.disable(logging.ERROR)
    for part in range(PARTS):
        begun = time.process_time()
        draw = random.Random(options.seed + part)
        counts = TARGETS[options.target](draw, options.inputs // PARTS)
        seconds = time.process_time() - begun
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        shown = ", ".join(f"{name}: {count:,}" for name, count in counts.most_common())
        print(f"seed {options.seed + part}: {shown}; {seconds:.1f} CPU-s, {memory} MB", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
