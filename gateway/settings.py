"""The gateway's settings."""

from pathlib import Path
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Meta, field

from wire.settings import File, HostNames, LogFormat, LogLevel, Parsed, Port, whole

Days = Annotated[float, Meta(gt=0, le=36_500, description="days, above 0 and at most 36500")]
Hours = Annotated[float, Meta(ge=0, le=876_000, description="hours, 0 to 876000")]
Silence = Annotated[float, Meta(gt=0, le=86_400, description="seconds, above 0 and at most 86400")]
Switch = Literal["0", "1"]


class Zone(Parsed, str):
    """An IANA time zone."""

    expected = "a time zone such as Europe/Berlin"

    @classmethod
    def parse(cls, text: str) -> Self:
        try:
            ZoneInfo(text)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError from None
        return cls(text)

    @property
    def info(self) -> ZoneInfo:
        """The time zone; UTC if the text is empty."""
        return ZoneInfo(self or "UTC")


class Units(Parsed, tuple[str, ...]):
    """Names of units, separated by commas."""

    expected = "names of units, separated by commas"

    @classmethod
    def parse(cls, text: str) -> Self:
        return cls(name.strip() for name in text.split(",") if name.strip())


class Charset(Parsed, str):
    """A character set, by its name in Python."""

    expected = "a character set such as utf-8 or iso8859-1"

    @classmethod
    def parse(cls, text: str) -> Self:
        try:
            if b"MSH|".decode(text) != "MSH|":
                raise ValueError
        except LookupError:
            raise ValueError from None
        return cls(text)


class Settings(msgspec.Struct, frozen=True):
    """The settings, which `wire.settings.read` reads from the environment."""

    host: Annotated[str, "address to listen on"] = field(name="GATEWAY_HOST", default="127.0.0.1")
    port: Annotated[Port, "port of HTTP: the stream, FHIR, JSON and metrics"] = field(
        name="GATEWAY_PORT", default=8080
    )
    mllp_port: Annotated[Port, "port of HL7 over MLLP"] = 2575
    log: Annotated[Path, "the SQLite file that stores the messages"] = field(
        name="GATEWAY_LOG", default=Path("var/gateway.sqlite")
    )
    keep_days: Annotated[Days, "days that messages are kept; a later repeat counts as new"] = 30.0
    time_zone: Annotated[Zone, "the ward's time zone, such as Europe/Berlin"] = Zone("")
    icu_units: Annotated[Units, "points of care (PV1-3.1) that belong to the ICU; empty: all"] = (
        Units()
    )
    future_hours: Annotated[
        Hours, "hours after its receipt up to which a message may be dated; 0: any time"
    ] = 24.0
    authority: Annotated[str, "assigning authority of identifiers without one"] = ""
    keep_identifiers: Annotated[Switch, "1: show patients' names and identifiers on the pages"] = (
        "0"
    )
    codes: Annotated[File, "your own codes, in the format of gateway/codes.csv"] = File("")
    hl7_charset: Annotated[Charset, "character set of messages without MSH-18"] = Charset("utf-8")
    message_max: Annotated[int, whole(1_000, 1 << 28), "maximum size of a message in bytes"] = (
        1 << 20
    )
    connections_max: Annotated[
        int, whole(1, 10_000), "maximum number of MLLP connections; others wait"
    ] = 200
    silence_max: Annotated[Silence, "seconds without a byte after which a connection is closed"] = (
        3_600.0
    )
    mllp_tls_cert: Annotated[File, "certificate (PEM); if set, MLLP uses TLS"] = File("")
    mllp_tls_key: Annotated[File, "key of MLLP_TLS_CERT (PEM)"] = File("")
    mllp_tls_ca: Annotated[File, "CA (PEM); if set, senders need a certificate of this CA"] = File(
        ""
    )
    token_key_file: Annotated[
        File, "key that checks bearer tokens; if set, requests need a token"
    ] = field(name="MODEL_TOKEN_KEY_FILE", default=File(""))
    allowed_hosts: Annotated[
        HostNames, "allowed host names in requests, besides localhost, gateway and IP addresses"
    ] = HostNames()
    log_level: Annotated[LogLevel, "DEBUG, INFO, WARNING or ERROR"] = LogLevel("INFO")
    log_format: Annotated[LogFormat, "text or json"] = "text"
