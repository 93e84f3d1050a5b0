"""The dashboard's settings, read once from the environment.

DATABASE_URL    sqlite:///path or mysql://user:password@host:3306/database; a user who
                may only read is enough (sqlite:///var/icu.sqlite)
DATABASE_PASSWORD_FILE, REDIS_PASSWORD_FILE   files that hold the passwords
REDIS_URL       redis://127.0.0.1:6379/0
HOSPITAL_URL    http://127.0.0.1:8080
MODEL_URL       http://127.0.0.1:5000
DASHBOARD_HOST  address to listen on (127.0.0.1)
DASHBOARD_PORT  port to listen on (5002)
ALLOWED_HOSTS   names by which it may be asked for, besides localhost, dashboard and addresses
LOG_LEVEL       DEBUG, INFO, WARNING or ERROR (INFO)
LOG_FORMAT      text, or json: one object a line (text)
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


class SettingError(Exception):
    """A setting has a value that cannot be used."""


@dataclass(frozen=True)
class Settings:
    """What the environment can change; the module's docstring says how."""

    database_url: str = "sqlite:///var/icu.sqlite"
    database_password: str | None = None
    redis_url: str = "redis://127.0.0.1:6379/0"
    redis_password: str | None = None
    hospital_url: str = "http://127.0.0.1:8080"
    model_url: str = "http://127.0.0.1:5000"
    host: str = "127.0.0.1"
    port: int = 5002
    allowed_hosts: tuple[str, ...] = ()
    log_level: str = "INFO"
    log_format: str = "text"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read the settings; an empty variable counts as unset.

        Raises SettingError, naming key and value, for one that cannot be used.
        """
        given = {key: value for key, value in environment.items() if value}

        def url(key: str, default: str, *schemes: str) -> str:
            value = given.get(key, default)
            with suppress(ValueError):
                address = urlsplit(value)
                where = address.netloc or address.path.strip("/")
                # A port that is none raises when it is asked for.
                if address.scheme in schemes and where and address.port != 0:
                    return value.rstrip("/")
            raise SettingError(f"{key}={value}: expected {'://… or '.join(schemes)}://…")

        port = given.get("DASHBOARD_PORT", str(cls.port))
        if not port.isdecimal() or int(port) > 65535:
            raise SettingError(f"DASHBOARD_PORT={port}: expected a port number")
        level = given.get("LOG_LEVEL", cls.log_level)
        if level.upper() not in LEVELS:
            raise SettingError(f"LOG_LEVEL={level}: expected one of {', '.join(LEVELS)}")
        form = given.get("LOG_FORMAT", cls.log_format)
        if form not in ("text", "json"):
            raise SettingError(f"LOG_FORMAT={form}: expected text or json")
        return cls(
            database_url=url("DATABASE_URL", cls.database_url, "sqlite", "mysql"),
            database_password=_secret("DATABASE_PASSWORD_FILE", given),
            redis_url=url("REDIS_URL", cls.redis_url, "redis", "rediss", "unix"),
            redis_password=_secret("REDIS_PASSWORD_FILE", given),
            hospital_url=url("HOSPITAL_URL", cls.hospital_url, "http", "https"),
            model_url=url("MODEL_URL", cls.model_url, "http", "https"),
            host=given.get("DASHBOARD_HOST", cls.host),
            port=int(port),
            allowed_hosts=_names(given.get("ALLOWED_HOSTS", "")),
            log_level=level.upper(),
            log_format=form,
        )


def _secret(key: str, given: Mapping[str, str]) -> str | None:
    path = given.get(key)
    if path is None:
        return None
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SettingError(f"{key}={path}: {error.strerror}") from None


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.lower().replace(",", " ").split())
    for name in names:
        if not re.fullmatch(r"[a-z0-9.-]+", name):
            raise SettingError(f"ALLOWED_HOSTS={text}: {name} is not a host's name")
    return names
