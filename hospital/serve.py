"""Prepares the stream in child processes, and serves it until hospital is stopped.

The child processes load pandas and numpy, which would otherwise stay in this process's memory.
"""

import asyncio
import errno
import logging
import os
import re
import signal
import sys
from pathlib import Path

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage

from hospital.files import DERIVED, writable_folder
from hospital.replay import Replay
from hospital.settings import Settings
from hospital.streamer_aiohttp import WARD, create_app
from hospital.synthetic_mark import INPUTS

log = logging.getLogger(__name__)

# Names of files that hold data or programs.
DATA = re.compile(
    r"\.(csv|tsv|txt|xlsx?|parquet|feather|sas7bdat|dta|sav|rds|rdata|py)(\.\w+)?$"
    r"|\.(zip|tar|tgz|7z|rar)(\.\w+)?$",
    re.IGNORECASE,
)

OURS = {*DERIVED, "ground_truth.csv"}


class CannotServe(Exception):
    """The stream cannot be prepared, or the port cannot be opened."""


async def serve(settings: Settings) -> None:
    """Opens the port at once, prepares the stream, and serves it until SIGINT or SIGTERM.

    Raises CannotServe or SettingError.
    """
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    logging.getLogger("aiohttp.server").addFilter(in_one_line)
    app = create_app(settings)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    try:
        await listen(runner, settings)
        preparing = asyncio.create_task(prepare(settings))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({preparing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            preparing.cancel()
            await asyncio.gather(preparing, return_exceptions=True)
        else:
            app[WARD].replay = replay = preparing.result()
            log.info("stream %s is ready: %d messages", replay.stream, replay.end)
            await stopping
    finally:
        await runner.cleanup()


def in_one_line(record: logging.LogRecord) -> bool:
    """A log filter: turns the error about a malformed request into a warning without a traceback,
    because it is the client's fault."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, BadHttpMessage):
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.msg = f"malformed request from %s: {type(error).__name__}"
        record.exc_info = None
    return True


async def listen(runner: web.AppRunner, settings: Settings) -> None:
    try:
        await web.TCPSite(runner, settings.host, settings.port).start()
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        raise CannotServe(
            f"HOSPITAL_HOST={settings.host} HOSPITAL_PORT={settings.port}: "
            + ("the port is taken by another program" if taken else str(error.strerror or error))
        ) from error
    host, port = runner.addresses[0][:2]
    log.info("listening on http://%s:%d", host, port)


async def prepare(settings: Settings) -> Replay:
    """Updates all_data.csv if an input has changed, and opens it. Raises CannotServe or
    SettingError."""
    inputs = await patient_data(settings)
    folder = Path(await run("hospital.preprocessing", PATIENT_DATA=str(inputs)))
    try:
        return Replay(folder, settings.replay_mode, settings.replay_number)
    except (OSError, ValueError, KeyError) as error:
        raise CannotServe(f"{folder / 'all_data.json'} cannot be used: {error}") from error


async def patient_data(settings: Settings) -> Path:
    """Returns the folder with the CSVs. Writes a synthetic ward first if the folder has no data.

    Raises CannotServe if the folder is missing, cannot be read or has other data, so that nobody
    mistakes a synthetic ward for their own data.
    """
    folder = settings.patient_data
    try:
        if not folder.is_dir():
            raise CannotServe(f"PATIENT_DATA={folder}: there is no such folder")
        if holds_inputs(folder):
            return folder
        names = {path.name for path in folder.iterdir() if DATA.search(path.name)}
    except OSError as error:
        raise CannotServe(f"PATIENT_DATA={folder}: cannot read it: {error.strerror}") from error
    if others := sorted(names - OURS):
        named = ", ".join(others[:5]) + (", …" if others[5:] else "")
        raise CannotServe(
            f"PATIENT_DATA={folder}: expected {', '.join(INPUTS)}, found {named}; "
            "a synthetic ward is written only to a folder without data"
        )
    target = writable_folder(folder, settings.derived_data)
    if not holds_inputs(target):
        log.warning("no CSVs in %s: writing a synthetic ward to %s", folder, target)
        await run("hospital.synthetic", "--to", str(target))
    return target


def holds_inputs(folder: Path) -> bool:
    return any((folder / name).exists() for name in INPUTS)


async def run(module: str, *arguments: str, **environment: str) -> str:
    """Runs a module in a child process, which logs its own errors; returns the child's output.

    Raises CannotServe if the child fails. The child has a session of its own, so that Ctrl-C
    reaches only hospital, which then ends the child.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", module, *arguments),
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        printed, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    if process.returncode:
        raise CannotServe(f"no stream: {module} failed (exit code {process.returncode})")
    return printed.decode().strip()
