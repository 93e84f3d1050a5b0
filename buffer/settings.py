"""The buffer's settings, read once from the environment."""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")


class SettingError(Exception):
    """A setting has a value that cannot be used."""


@dataclass(frozen=True)
class Settings:
    """What the buffer can be told from outside."""

    stream_url: str = "http://127.0.0.1:8080/sub"
    redis_url: str = "redis://127.0.0.1:6379/0"
    redis_password_file: str = ""
    partitions: int = 2
    batch_max: int = 5_000
    queue_max: int = 100_000
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 0  # none
    log_level: str = "INFO"
    log_format: str = "text"

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Raises SettingError, naming the variable and its value."""
        return cls(
            stream_url=_read(environ, "STREAM_URL", _http, cls.stream_url),
            redis_url=_read(environ, "REDIS_URL", _redis, cls.redis_url),
            redis_password_file=_read(environ, "REDIS_PASSWORD_FILE", _file, ""),
            partitions=_read(environ, "PARTITIONS", _positive, cls.partitions),
            batch_max=_read(environ, "BATCH_MAX", _positive, cls.batch_max),
            queue_max=_read(environ, "QUEUE_MAX", _positive, cls.queue_max),
            metrics_host=_read(environ, "METRICS_HOST", str, cls.metrics_host),
            metrics_port=_read(environ, "BUFFER_METRICS_PORT", _port, cls.metrics_port),
            log_level=_read(environ, "LOG_LEVEL", _level, cls.log_level),
            log_format=_read(environ, "LOG_FORMAT", _format, cls.log_format),
        )


def _read(environ: Mapping[str, str], key: str, parse: Callable[[str], T], default: T) -> T:
    text = environ.get(key, "")
    if not text:
        return default
    try:
        return parse(text)
    except ValueError as error:
        raise SettingError(f"{key}={text}: {error}") from None


def _url(expected: str, text: str) -> str:
    """`expected` shows what it looks like: one or more addresses, with ` or ` in between."""
    schemes = [each.partition(":")[0] for each in expected.split(" or ")]
    with suppress(ValueError):
        address = urlsplit(text)
        where = address.netloc or address.path.strip("/")
        # A port that is none raises when it is asked for.
        if address.scheme in schemes and where and address.port != 0:
            return text
    raise ValueError(f"expected {expected}")


def _http(text: str) -> str:
    return _url("http://HOST:PORT/PATH or https://HOST:PORT/PATH", text)


def _redis(text: str) -> str:
    return _url("redis://HOST:PORT/0 or rediss://HOST:PORT/0 or unix:///PATH", text)


def _file(text: str) -> str:
    try:
        Path(text).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(error.strerror) from None
    return text


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise ValueError("expected a whole number above 0")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise ValueError("expected a port, 1 to 65535")
    return int(text)


def _format(text: str) -> str:
    if text not in ("text", "json"):
        raise ValueError("expected text or json")
    return text


def _level(text: str) -> str:
    if text.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise ValueError("expected DEBUG, INFO, WARNING or ERROR")
    return text.upper()
