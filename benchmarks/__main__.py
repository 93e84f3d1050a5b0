"""`python -m benchmarks`: measures the speed of the pipeline, and the limits of the machine.

Most figures have a raw limit of this machine, measured in the same run. After each complete
replay, the benchmark compares the numbers of rows, the positions and a sample of the rows with
those that pandas computes from the CSVs.

DATABASE_URL=mysql://USER:PASSWORD@HOST[:PORT]/ names a server whose user may create databases
(icu_benchmark_..., dropped afterwards); any other DATABASE_URL means SQLite. Without DATABASE_URL,
MariaDB or MySQL from PATH is started in a temporary folder, with the durability settings of
production but no binary log; if there is neither, SQLite is measured.
"""

import argparse
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import (
    end_to_end,
    gateway,
    latency,
    merge,
    naive,
    page,
    report,
    scale,
    stages,
    startup,
)
from benchmarks.bench import Bench, Result
from benchmarks.databases import CannotMeasure, SQLiteFiles, server
from benchmarks.oracle import Wrong
from benchmarks.processes import describe_machine
from embedded import redis_server
from embedded.programs import ROOT

BENCHMARKS: dict[str, tuple[Callable[[Bench], Iterator[Result]], str]] = {
    "stages": (stages.run, "each stage alone"),
    "end-to-end": (end_to_end.run, "30 % and 100 % predicted, 1 and 2 workers"),
    "history": (
        end_to_end.history,
        "30 % and 100 % predicted, 2 workers, after 1 and 10 million readings",
    ),
    "patients": (end_to_end.patients, "30 % predicted, 2 workers, 50 and 20,000 patients"),
    "sqlite": (end_to_end.sqlite, "30 % and 100 % predicted, 2 workers, into SQLite"),
    "scale": (scale.run, "1, 2 and 4 tools, 4 partitions"),
    "latency": (
        latency.run,
        "from the due time of a message to its commit, at 1 to 10,000 messages/s",
    ),
    "page": (page.run, "a replay with the ward page open"),
    "startup": (startup.run, "start to first prediction"),
    "naive": (naive.run, "a naive implementation of the pipeline, for comparison"),
    "merge": (merge.run, "merging CSVs of 0.1, 1 and 10 million rows"),
    "memory": (end_to_end.memory, "resident memory over 10 million messages"),
    "gateway": (gateway.run, "from HL7 to the gateway's log, and to the prediction"),
    "gateway-memory": (gateway.memory, "the gateway's memory over 1 million messages"),
}


def main() -> int:
    arguments = _arguments()
    os.chdir(ROOT)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    results: list[Result] = []
    failures: list[str] = []
    about = _about()
    arguments.to.mkdir(parents=True, exist_ok=True)
    Path("var").mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="benchmarks-", dir="var")).resolve()
    try:
        redis_server.executable()
        with server(folder / "database", os.environ.get("DATABASE_URL")) as found:
            about["database"] = found.name
            bench = Bench(folder, found, arguments.quick)
            if isinstance(found, SQLiteFiles) and not os.environ.get("DATABASE_URL"):
                bench.say("no MariaDB or MySQL on PATH and no DATABASE_URL: measuring SQLite")
            for name in arguments.names:
                _measure(bench, name, results, failures)
    except KeyboardInterrupt:
        failures.append("interrupted")
    except (CannotMeasure, redis_server.NoRedis) as error:
        failures.append(str(error))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    about["seconds"] = round(time.time() - about.pop("started"))
    about["failures"] = failures
    _report(arguments.to, about, results)
    for failure in failures:
        print(f"benchmarks: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _measure(bench: Bench, name: str, results: list[Result], failures: list[str]) -> None:
    bench.say(f"{name}: {BENCHMARKS[name][1]}")
    try:
        for result in BENCHMARKS[name][0](bench):
            results.append(result)
            bench.say("  " + " | ".join(report.row(result)))
    except (CannotMeasure, Wrong) as error:
        bench.say(f"  {error}")
        failures.append(f"{name}: {str(error).splitlines()[0]}")
    except Exception as error:  # the figures of the other benchmarks are still useful
        traceback.print_exc()
        failures.append(f"{name}: {type(error).__name__}: {error}")


def _report(folder: Path, about: dict[str, Any], results: list[Result]) -> None:
    machine = about["machine"]
    title = (
        f"{about['date']}, {machine['cores']} × {machine['cpu']}, {machine['memory_gib']} GiB, "
        f"{about.get('database', 'no database')}, `{about['command']}`"
    )
    text = "\n\n".join(
        part for part in (title, report.table(results), report.goals(results)) if part
    )
    others = [result.details.get("others_cpu_share", 0.0) for result in results]
    if max(others, default=0.0) > 0.1:
        text += (
            f"\n\nDuring the run, other programs took up to {max(others):.0%} of the CPU time:"
            " the figures are worse than on an idle machine, and the ratios are uncertain."
        )
    print(text)
    (folder / "benchmarks.md").write_text(text + "\n")
    report.write_json(folder / "benchmarks.json", about, results)
    report.write_svg(folder / "benchmarks.svg", title, results)
    print(f"written to {folder}/benchmarks.md, .json and .svg", file=sys.stderr)


def _about() -> dict[str, Any]:
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    packages = ("aiohttp", "mysql-connector-python", "redis", "rq", "scikit-learn")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "started": time.time(),
        "command": shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        "commit": commit.stdout.strip(),
        "machine": describe_machine(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
        "load_before": os.getloadavg()[0],
    }


def _arguments() -> argparse.Namespace:
    width = max(map(len, BENCHMARKS))
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog="benchmarks:\n"
        + "\n".join(f"  {name:{width}}  {what}" for name, (_, what) in BENCHMARKS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="names of the benchmarks to run (default: all)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="use small inputs, which takes about three minutes"
    )
    parser.add_argument(
        "--to",
        type=Path,
        default=ROOT / "reports",
        metavar="FOLDER",
        help="folder of the results (default: reports)",
    )
    arguments = parser.parse_args()
    for name in arguments.names:
        if name not in BENCHMARKS:
            parser.error(f"{name!r} is not one of {', '.join(BENCHMARKS)}")
    arguments.names = arguments.names or list(BENCHMARKS)
    arguments.to = arguments.to.resolve()
    return arguments


if __name__ == "__main__":
    sys.exit(main())
