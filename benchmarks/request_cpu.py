"""Compares the CPU time of a request to the model API, for one row, with that of a bare Flask
route. Both run under the model API's gunicorn settings."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import urllib3

from benchmarks import processes
from benchmarks.bench import Result
from benchmarks.pipeline import Pipeline
from embedded.programs import ROOT
from embedded.stack import free_port
from tool import inference

REQUESTS = 500  # in each turn
TURNS = 4
ROW = [(60.0, 120.0, 18.0, 0.4)]  # the features of the formula


def measure(pipeline: Pipeline) -> Result:
    with _bare_flask(pipeline) as (bare_url, bare_pids), urllib3.PoolManager(retries=False) as pool:
        own_url, own_pids = pipeline.environ["MODEL_URL"], partial(pipeline.pids, "modelapi")
        for url in (own_url, bare_url):
            _ask(pool, url, REQUESTS // 2)
        turns = [
            (_cpu(pool, own_url, own_pids), _cpu(pool, bare_url, bare_pids)) for _ in range(TURNS)
        ]
    own, bare = (sum(each) / TURNS / REQUESTS for each in zip(*turns, strict=True))
    return Result(
        "model cpu",
        "model API, 1 row, CPU of a request",
        own * 1e6,
        "µs",
        bare * 1e6,
        "a bare Flask route",
    )


@contextmanager
def _bare_flask(pipeline: Pipeline) -> Iterator[tuple[str, Callable[[], list[int]]]]:
    port = free_port()
    command = "-m gunicorn --config modelapi/gunicorn.conf.py benchmarks.bare_flask:app"
    with (pipeline.folder / "bare.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *command.split()],
            cwd=ROOT,
            env=pipeline.environ | {"MODELAPI_PORT": str(port)},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        pipeline.wait(lambda: _answers(url), "the bare route did not start")
        yield url, lambda: processes.group(process.pid)
    finally:
        process.terminate()
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        return urllib3.request("POST", f"{url}/ready", retries=False).status == 200
    except urllib3.exceptions.HTTPError:
        return False


def _cpu(pool: urllib3.PoolManager, url: str, pids: Callable[[], list[int]]) -> float:
    """The seconds of CPU time that the processes take for one turn."""
    before = sum(map(processes.cpu_seconds, pids()))
    _ask(pool, url, REQUESTS)
    return sum(map(processes.cpu_seconds, pids())) - before


def _ask(pool: urllib3.PoolManager, url: str, times: int) -> None:
    """Sends requests over one kept connection."""
    body, headers = inference.request(ROW)
    path = url + inference.path("formula", "1")
    for _ in range(times):
        assert pool.request("POST", path, body=body, headers=headers).status == 200
