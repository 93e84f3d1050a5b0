"""Hospital's settings, read once from the environment.

PATIENT_DATA   folder with age.csv, admission.csv and signal.csv (patient_data)
DERIVED_DATA   where all_data.csv goes if PATIENT_DATA is not writable (var/derived)
DATE_FORMAT    dd/mm/YYYY or mm/dd/YYYY, for dates with the year last (unset: day first)
REPLAY_RATE    messages per second, e.g. 50 or 0.5; 0: as fast as the reader takes them (50)
REPLAY_MODE    live: a discharge is told when it happens; hindsight: from the start (live)
HOSPITAL_HOST  address to listen on (127.0.0.1)
HOSPITAL_PORT  port to listen on; 0: any free one (8080)
ALLOWED_HOSTS  names by which it may be asked for, besides localhost, hospital and addresses
LOG_LEVEL      DEBUG, INFO, WARNING or ERROR (INFO)
LOG_FORMAT     text, or json: one object a line (text)
"""

import math
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self


class SettingError(Exception):
    """A setting has a value that cannot be used."""


@dataclass(frozen=True)
class Settings:
    """What the environment can change; the module's docstring says how."""

    patient_data: Path = Path("patient_data")
    derived_data: Path = Path("var/derived")
    date_format: str | None = None
    replay_rate: float = 50.0
    replay_mode: str = "live"
    host: str = "127.0.0.1"
    port: int = 8080
    allowed_hosts: tuple[str, ...] = ()
    log_level: str = "INFO"
    log_format: str = "text"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read the settings; an empty variable counts as unset.

        Raises SettingError, naming key and value, for one that cannot be used.
        """
        given = {key: value for key, value in environment.items() if value}
        return cls(
            patient_data=Path(given.get("PATIENT_DATA", cls.patient_data)),
            derived_data=Path(given.get("DERIVED_DATA", cls.derived_data)),
            date_format=given.get("DATE_FORMAT"),
            replay_rate=_rate(given.get("REPLAY_RATE", str(cls.replay_rate))),
            replay_mode=_one_of(
                "REPLAY_MODE", given.get("REPLAY_MODE", cls.replay_mode), ("live", "hindsight")
            ),
            host=given.get("HOSPITAL_HOST", cls.host),
            port=_port(given.get("HOSPITAL_PORT", str(cls.port))),
            allowed_hosts=_names(given.get("ALLOWED_HOSTS", "")),
            log_level=_one_of(
                "LOG_LEVEL",
                given.get("LOG_LEVEL", cls.log_level).upper(),
                ("DEBUG", "INFO", "WARNING", "ERROR"),
            ),
            log_format=_one_of(
                "LOG_FORMAT", given.get("LOG_FORMAT", cls.log_format), ("text", "json")
            ),
        )


def writable_folder(first: Path, spare: Path) -> Path:
    """`first` if a file can be made in it, else `spare`, which is made if missing.

    Tried, not asked: permission bits say nothing of read-only mounts and other users.
    Raises SettingError if neither can be written.
    """
    try:
        tempfile.TemporaryFile(dir=first).close()
        return first
    except OSError:
        pass
    try:
        spare.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=spare).close()
        return spare
    except OSError as error:
        raise SettingError(
            f"cannot write to PATIENT_DATA={first} nor to DERIVED_DATA={spare}: {error.strerror}"
        ) from error


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 <= rate < math.inf:
        raise SettingError(f"REPLAY_RATE: {text!r} is not a number of messages per second")
    return rate


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535):
        raise SettingError(f"HOSPITAL_PORT: {text!r} is not a port (0 to 65535)")
    return int(text)


def _one_of(key: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise SettingError(f"{key}: {value!r} is not one of {', '.join(choices)}")
    return value


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.lower().replace(",", " ").split())
    for name in names:
        if not re.fullmatch(r"[a-z0-9.-]+", name):
            raise SettingError(f"ALLOWED_HOSTS={text}: {name} is not a host's name")
    return names
