"""Tests that the run ends with one line and exit code 1 if a program dies at each start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from embedded.programs import ROOT
from embedded.stack import free_ports
from tests.support import servers
from tests.support.pipeline import synthetic

pytestmark = pytest.mark.timeout(120)


def run_tool(
    folder: Path, *command: str, seconds: float, **settings: str
) -> "subprocess.CompletedProcess[str]":
    """Runs a Python command with the settings of a tool whose files are in `folder`."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=os.environ
        | {
            "REDIS_URL": f"unix://{folder}/redis.sock",
            "DATABASE_URL": f"sqlite:///{folder}/icu.sqlite",
            "MODEL_URL": "http://127.0.0.1:9",
        }
        | settings,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


@pytest.mark.parametrize("process", ["work", "run_in_background"])
def test_the_tool_ends_when_a_process_dies_at_each_start(tmp_path: Path, process: str) -> None:
    with servers.redis_server(tmp_path):
        command = ("-m", "tests.support.dying_tool")
        done = run_tool(tmp_path, *command, seconds=100, DYING=process, PARTITIONS="1")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("tool: ")
    assert "exit code 3" in last


# Runs the background process of a tool whose thread for the webhook fails.
FAILING_THREAD = """
from tool import processes
from tool.settings import Settings
from wire.settings import read
def fail(*_):
    raise RuntimeError("a fault")
processes.send_alarms = fail
processes.run_in_background(lambda: None, read(Settings))
"""


def test_the_background_process_ends_when_one_of_its_threads_fails(tmp_path: Path) -> None:
    command = ("-c", FAILING_THREAD)
    done = run_tool(tmp_path, *command, seconds=30, ALARM_WEBHOOK="http://127.0.0.1:9")
    assert done.returncode == 1
    assert "a fault" in done.stderr


# Runs `make run` or `make replay` in a folder of its own, with one program that ends at once.
RUN = """
import sys
from pathlib import Path
from embedded import __main__, programs, replay
folder = Path(sys.argv[1])
programs.COMMANDS[sys.argv[3]] = "echo a fault; exit 3"
replay.FOLDER, replay.DATABASE = folder / "run", folder / "sqlite"
__main__.FOLDER = folder
sys.argv = ["embedded", sys.argv[2]]
raise SystemExit(__main__.main())
"""


def run(folder: Path, command: str, program: str, ward: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", RUN, str(folder), command, program],
        cwd=ROOT,
        env=os.environ | free_ports() | {"PATIENT_DATA": str(ward)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic(tmp_path_factory.mktemp("ward"), "--patients", "2", "--days", "1")


@pytest.mark.parametrize(
    ("command", "program"), [("run", "dashboard"), ("run", "front"), ("replay", "tool")]
)
def test_a_run_ends_when_a_program_dies_at_its_start(
    ward: Path, tmp_path: Path, command: str, program: str
) -> None:
    """The test also checks that only the owner can read the files of the programs."""
    done = run(tmp_path, command, program, ward)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"embedded: {program}")
    assert "a fault" in done.stdout + done.stderr
    written = [path for path in tmp_path.rglob("*") if not path.is_socket()]
    assert {path.name for path in written} >= {"redis"}
    assert not [path for path in written if path.stat().st_mode & 0o077]
