"""The login service's settings."""

import ipaddress
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from wire.settings import HttpUrl, LogFormat, LogLevel, Port

Hours = Annotated[
    float, msgspec.Meta(gt=0, le=8_760, description="hours, above 0 and at most 8760")
]


class Settings(msgspec.Struct, frozen=True):
    """The settings, which `wire.settings.read` reads from the environment."""

    login: Annotated[
        Literal["auto", "on", "off"],
        "whether people must log in; auto: only if nginx is published beyond this machine",
    ] = "auto"
    bind_address: Annotated[str, "the address that nginx is published on"] = "127.0.0.1"
    tls_address: Annotated[str, "the address that nginx with TLS is published on"] = "127.0.0.1"
    login_file: Annotated[Path, "SQLite file of users, sessions and audit log"] = Path(
        "var/login.sqlite"
    )
    session_hours: Annotated[Hours, "hours until a person must log in again"] = 12.0
    oidc_proxy: Annotated[HttpUrl, "an oauth2-proxy that replaces the built-in users"] = HttpUrl("")
    # Login only checks whether this is set. The model API and the gateway check the tokens.
    model_token_key_file: Annotated[str, "if set, requests with a bearer token need no log-in"] = ""
    host: Annotated[str, "address to listen on"] = msgspec.field(
        name="LOGIN_HOST", default="127.0.0.1"
    )
    port: Annotated[Port, "port to listen on"] = msgspec.field(name="LOGIN_PORT", default=5003)
    log_level: Annotated[LogLevel, "DEBUG, INFO, WARNING or ERROR"] = LogLevel("INFO")
    log_format: Annotated[LogFormat, "text or json"] = "text"

    @property
    def required(self) -> bool:
        """Whether people must log in on at least one port; nginx/start.sh decides for each port."""
        if self.login == "auto":
            return not (is_loopback(self.bind_address) and is_loopback(self.tls_address))
        return self.login == "on"


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach the address.

    >>> is_loopback("127.0.0.1"), is_loopback("[::1]"), is_loopback("localhost")
    (True, True, True)
    >>> is_loopback("0.0.0.0"), is_loopback("::"), is_loopback("ward.example.org")
    (False, False, False)
    """
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return address == "localhost"
