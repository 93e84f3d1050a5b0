"""Prepares the embedded pipeline: folders, free ports, and the environment of its programs."""

import itertools
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from honcho.manager import Manager
from honcho.printer import Message, Printer

from buffer.settings import Settings as BufferSettings
from dashboard.settings import Settings as DashboardSettings
from embedded import redis_server
from embedded.programs import COMMANDS, ROOT
from gateway.settings import Settings as GatewaySettings
from hospital.cells import Dates
from hospital.settings import Settings as HospitalSettings
from modelapi.settings import Settings as ModelapiSettings
from tool.settings import Settings as ToolSettings
from wire.settings import read, without_password

# The first of the ports that `free_port` returns. It is above 10080, the highest port that browsers
# refuse.
FIRST_PORT = 10_100
_ports = itertools.count()
_PORTS = (
    *("FRONT_PORT", "MODELAPI_PORT", "DASHBOARD_PORT"),
    *("BUFFER_METRICS_PORT", "TOOL_METRICS_PORT"),
)
# The ports of a pipeline, by the program that serves its stream.
PORTS = {
    "hospital": ("HOSPITAL_PORT", *_PORTS),
    "gateway": ("GATEWAY_PORT", "MLLP_PORT", *_PORTS),
}


class CannotRun(Exception):
    """The pipeline cannot run. The text is the reason."""


def environment(
    folder: Path, given: Mapping[str, str] = os.environ, source: str = "hospital"
) -> dict[str, str]:
    """The environment of all programs: the variables `given`, and defaults for the variables that
    are missing or empty. By default, all files are in `folder`.

    source: the program that serves the stream, hospital or gateway.
    """
    folder = folder.resolve()
    redis_folder = folder / "redis"
    chosen = {key: value for key, value in given.items() if value}
    ours = {
        "REDIS_URL": f"unix://{_short(redis_folder) / redis_server.SOCKET}",
        "REDIS_FOLDER": str(redis_folder),
        "DATABASE_URL": f"sqlite:///{folder / 'icu.sqlite'}",
        "DERIVED_DATA": str(folder / "derived"),
        "MODEL_STATE": str(folder / "models.sqlite"),
        "HOSPITAL_PORT": "8080",
        "GATEWAY_PORT": "8080",
        "MLLP_PORT": "2575",
        "GATEWAY_LOG": str(folder / "gateway.sqlite"),
        "FRONT_PORT": "5000",
        "MODELAPI_PORT": "5001",
        "DASHBOARD_PORT": "5002",
        "BUFFER_METRICS_PORT": "9101",
        "TOOL_METRICS_PORT": "9102",
        "PYTHONUNBUFFERED": "1",
    }
    chosen = ours | chosen
    port = chosen[f"{source.upper()}_PORT"]
    chosen.setdefault("STREAM_URL", f"http://127.0.0.1:{port}/sub")
    chosen.setdefault("HOSPITAL_URL", f"http://127.0.0.1:{port}")
    chosen.setdefault("MODEL_URL", f"http://127.0.0.1:{chosen['MODELAPI_PORT']}")
    # The programs run in the Python environment of this process.
    chosen["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{chosen.get('PATH', '')}"
    return chosen


def _short(folder: Path) -> Path:
    """The folder, or a short link to it, because the path of a socket has at most 108 bytes."""
    if len(os.fsencode(folder)) < 90:
        return folder
    link = Path(tempfile.mkdtemp(prefix="icu-"), "redis")
    link.symlink_to(folder)
    return link


def make_private(folder: Path) -> None:
    """Creates a folder for patient data, which only its owner can enter."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)


def check_settings(environ: Mapping[str, str]) -> None:
    """Reads the settings as each program does. Raises CannotRun for the first invalid one."""
    try:
        hospital = read(HospitalSettings, environ)
        Dates(hospital.date_format)
        read(BufferSettings, environ)
        read(GatewaySettings, environ)
        read(ToolSettings, environ)
        read(ModelapiSettings, environ)
        read(DashboardSettings, environ)
    except ValueError as error:
        raise CannotRun(str(error)) from None
    if not hospital.patient_data.is_dir():
        raise CannotRun(f"PATIENT_DATA: there is no folder {str(hospital.patient_data)!r}")


def prepare(folder: Path, environ: Mapping[str, str], source: str = "hospital") -> None:
    """Creates the folders, and checks the settings, the ports and Redis. Raises CannotRun.

    source: the program that serves the stream, hospital or gateway.
    """
    check_settings(environ)
    try:
        redis_server.executable()
    except redis_server.NoRedis as error:
        raise CannotRun(str(error)) from None
    try:
        (folder / "redis").mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise CannotRun(f"cannot write to {folder}: {error.strerror}") from None
    if not environ["REDIS_URL"].startswith("unix://"):
        raise CannotRun(
            f"REDIS_URL={without_password(environ['REDIS_URL'])}: this pipeline runs its own Redis "
            "on a socket: unset REDIS_URL"
        )
    _check_stopped(folder, environ)
    _check_ports({key: environ[key] for key in PORTS[source]})


def remove(folder: Path, environ: Mapping[str, str]) -> None:
    """Deletes the folder of an earlier run. Raises CannotRun if that run has not ended."""
    _check_stopped(folder, environ)
    shutil.rmtree(folder, ignore_errors=True)


def _check_stopped(folder: Path, environ: Mapping[str, str]) -> None:
    if is_running(environ):
        raise CannotRun(f"the pipeline is already running in {folder}")


def _check_ports(ports: Mapping[str, str]) -> None:
    """Raises CannotRun if a port is invalid, is used twice, or is taken."""
    taken = []
    for key, port in ports.items():
        if not port.isdecimal() or not 0 < int(port) < 65536:
            raise CannotRun(f"{key}={port}: expected a port, 1 to 65535")
        if same := [other for other in ports if other != key and ports[other] == port]:
            raise CannotRun(f"{key} and {same[0]} are both {port}: set one of them to another port")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", int(port)))
            except OSError:
                taken.append(f"{key}={port}")
    if taken:
        raise CannotRun(f"another program uses {', '.join(taken)}: stop it, or set other ports")


def is_running(environ: Mapping[str, str]) -> bool:
    """Whether the Redis of this environment's pipeline answers."""
    path = environ["REDIS_URL"].removeprefix("unix://")
    with socket.socket(socket.AF_UNIX) as probe:
        return Path(path).exists() and probe.connect_ex(path) == 0


def free_port() -> int:
    """A port that is free. No two calls of a process return the same one.

    A port that the system chooses could be chosen again until a program uses it. So these ports are
    below the system's range, and processes with consecutive ids begin at different ports.
    """
    while True:
        port = FIRST_PORT + (os.getpid() % 22 * 1_000 + next(_ports)) % 22_000
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def free_ports(source: str = "hospital") -> dict[str, str]:
    """A free port for each port of a pipeline."""
    return {key: str(free_port()) for key in PORTS[source]}


class Output(Printer):  # type: ignore[misc]
    """Prints the output of the programs. first_end: honcho's line about the first program
    that ended."""

    first_end = ""

    def write(self, message: Message) -> None:
        if message.name == "system" and " stopped (rc=" in str(message.data):
            self.first_end = self.first_end or str(message.data).strip()
        super().write(message)


def manager(environ: Mapping[str, str], source: str, output: Output) -> Manager:
    """A honcho manager for the programs of the Procfile, with `source` in hospital's place."""
    programs = Manager(output)
    for name, command in COMMANDS.items():
        if name not in {"hospital", "gateway"} - {source}:
            programs.add_process(name, command, env=dict(environ), cwd=str(ROOT))
    return programs
