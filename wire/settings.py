"""Reads settings from environment variables.

A program declares its settings as a frozen msgspec Struct. Each field is one variable. Its name is
the name of the field in upper case, or the name in `msgspec.field(name=...)`. The text in a
field's `Annotated` type describes the variable in `--help`.

    class Settings(msgspec.Struct, frozen=True):
        host: Annotated[str, "address to listen on"] = msgspec.field(
            name="HOSPITAL_HOST", default="127.0.0.1"
        )
        replay_rate: Annotated[Rate, "messages per second; 0 is full speed"] = 50.0
"""

import os
import re
import typing
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

Struct = TypeVar("Struct", bound=msgspec.Struct)


class SettingError(ValueError):
    """A setting has an invalid value. The text is one line with the variable's name."""


def whole(least: int, most: int) -> Meta:
    """The limits of a whole number: `Annotated[int, whole(1, 64)]`."""
    return Meta(ge=least, le=most, description=f"a whole number from {least} to {most}")


Port = Annotated[int, Meta(ge=0, le=65_535, description="a port, 0 to 65535")]
# Each partition has a worker process.
Partitions = Annotated[int, whole(1, 128)]
Seconds = Annotated[float, Meta(gt=0, lt=3_600, description="seconds, above 0 and below 3600")]
Days = Annotated[int, Meta(ge=0, le=36_500, description="a number of days, 0 to 36500")]
Rate = Annotated[float, Meta(ge=0, le=1e9, description="messages per second, 0 to 1000000000")]
LogFormat = Literal["text", "json"]


class Parsed:
    """A type that parses the text of a variable. Errors show `expected`, which describes a valid
    text."""

    expected = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses the text. Raises ValueError or OSError if it is invalid."""
        raise NotImplementedError


class Url(Parsed, str):
    """An address. `expected` lists its valid forms, separated by ` or `.

    >>> HttpUrl.parse("http://127.0.0.1:5000/")
    'http://127.0.0.1:5000'
    """

    @classmethod
    def parse(cls, text: str) -> Self:
        schemes = [form.partition(":")[0] for form in cls.expected.split(" or ")]
        with suppress(ValueError):
            address = urlsplit(text)
            where = address.netloc or address.path.strip("/")
            # `.port` raises for an invalid port.
            if address.scheme in schemes and where and address.port != 0:
                return cls(text.rstrip("/"))
        raise ValueError


class HttpUrl(Url):
    """The address of a web service, without a slash at its end."""

    expected = "http://HOST:PORT or https://HOST:PORT"


class RedisUrl(Url):
    """The address of a Redis server."""

    expected = "redis://HOST:PORT/0 or rediss://HOST:PORT/0 or unix:///PATH"

    @classmethod
    def parse(cls, text: str) -> Self:
        # The path of a socket is taken literally, because it may contain any character.
        return cls(text) if re.match("unix:///.", text) else super().parse(text)


class DatabaseUrl(Url):
    """The address of the database. An SQLite path is taken literally, without escapes."""

    expected = "sqlite:///PATH or mysql://USER@HOST:PORT/DATABASE"

    @classmethod
    def parse(cls, text: str) -> Self:
        return cls(text) if re.match("sqlite:///.", text) else super().parse(text)


class File(Parsed, str):
    """The path of a readable file, or empty."""

    expected = "a readable file"

    @classmethod
    def parse(cls, text: str) -> Self:
        with Path(text).open("rb"):
            return cls(text)


class SecretFile(File):
    """The path of a file with a password or a token, or empty."""

    expected = "a readable file in UTF-8"

    @classmethod
    def parse(cls, text: str) -> Self:
        Path(text).read_text(encoding="utf-8")
        return cls(text)

    @property
    def secret(self) -> str:
        """The current text of the file, stripped; empty if no file is set. Raises OSError or
        ValueError if the file cannot be read now."""
        # Windows editors write a byte order mark, which UTF-8 alone would leave in the text.
        return Path(self).read_text(encoding="utf-8-sig").strip() if self else ""


class HostNames(Parsed, tuple[str, ...]):
    """Host names, separated by commas or spaces, in lower case.

    >>> HostNames.parse("Ward.example.org, wall.example.org")
    ('ward.example.org', 'wall.example.org')
    """

    expected = "host names, separated by commas"

    @classmethod
    def parse(cls, text: str) -> Self:
        names = text.lower().replace(",", " ").split()
        if not all(re.fullmatch(r"[a-z0-9.-]+", name) for name in names):
            raise ValueError
        return cls(names)


class LogLevel(Parsed, str):
    """A level of Python's logging, in upper case."""

    expected = "DEBUG, INFO, WARNING or ERROR"

    @classmethod
    def parse(cls, text: str) -> Self:
        if text.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
            raise ValueError
        return cls(text.upper())


def read(kind: type[Struct], environ: Mapping[str, str] = os.environ) -> Struct:
    """Reads the settings; an empty variable counts as unset.

    Raises SettingError for the first variable with an invalid value.
    """
    hints = typing.get_type_hints(kind, include_extras=True)
    given: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        key = variable(field)
        if text := environ.get(key, ""):
            given[field.name] = _convert(key, text, hints[field.name])
    return kind(**given)


def variable(field: msgspec.structs.FieldInfo) -> str:
    """The environment variable of a field."""
    return field.encode_name.upper()


def describe(kind: type[msgspec.Struct]) -> str:
    """The text about the settings in `--help`: one line per setting, with its default."""
    hints = typing.get_type_hints(kind, include_extras=True)
    fields = msgspec.structs.fields(kind)
    width = max(len(variable(field)) for field in fields)
    lines = ["settings (environment variables):"]
    for field in fields:
        texts = [item for item in _metadata(hints[field.name]) if isinstance(item, str)]
        default = "" if field.default in ("", (), None) else f" ({field.default})"
        lines.append(f"  {variable(field):<{width}}  {''.join(texts)}{default}")
    return "\n".join(lines)


def without_password(url: str) -> str:
    """The address with passwords and tokens masked.

    >>> without_password("redis://:s3cret/x@h:6379/0"), without_password("mysql://me:a#b@h/d")
    ('redis://:***@h:6379/0', 'mysql://me:***@h/d')
    """
    shown = re.sub(r"(://[^:@/]*):.*@", r"\1:***@", url)
    return re.sub(r"(?i)((?:password|token)=)[^&]*", r"\1***", shown)


def bearer(file: str) -> dict[str, str]:
    """The header with the token in a file; empty if `file` is empty. Call it for each request,
    because tokens are renewed. Raises OSError or ValueError, whose text does not show the token."""
    if not file:
        return {}
    try:
        token = SecretFile(file).secret
    except UnicodeDecodeError:
        raise ValueError(f"{file} is not a text in UTF-8") from None
    # HTTP libraries raise other errors for other characters, and show the token.
    if not re.fullmatch(r"[!-~]+", token):
        raise ValueError(f"{file} does not contain one token")
    return {"Authorization": f"Bearer {token}"}


def _convert(key: str, text: str, hint: Any) -> Any:
    try:
        return msgspec.convert(text.strip(), hint, strict=False, dec_hook=_parse)
    except OSError as error:
        reason = error.strerror or str(error)
    except ValueError:
        reason = f"expected {_expected(hint)}"
    # `from None`, because the text of the cause may contain the password.
    raise SettingError(f"{key}={without_password(text)}: {reason}") from None


def _parse(kind: Any, text: str) -> Any:
    # A Path is not a `Parsed`.
    return kind.parse(text) if issubclass(kind, Parsed) else kind(text)


def _metadata(hint: Any) -> tuple[Any, ...]:
    return tuple(getattr(hint, "__metadata__", ()))


def _expected(hint: Any) -> str:
    for item in _metadata(hint):
        if isinstance(item, Meta) and item.description:
            return item.description
    kind = typing.get_args(hint)[0] if _metadata(hint) else hint
    if typing.get_origin(kind) is Literal:
        return " or ".join(typing.get_args(kind))
    return str(getattr(kind, "expected", "") or f"a {getattr(kind, '__name__', kind)}")
