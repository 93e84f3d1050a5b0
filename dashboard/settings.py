"""The dashboard's settings."""

from typing import Annotated

import msgspec

from wire.settings import (
    DatabaseUrl,
    HostNames,
    HttpUrl,
    LogFormat,
    LogLevel,
    Port,
    RedisUrl,
    SecretFile,
)


class Settings(msgspec.Struct, frozen=True):
    """The settings, which `wire.settings.read` reads from the environment."""

    database_url: Annotated[DatabaseUrl, "the database; a user with SELECT is enough"] = (
        DatabaseUrl("sqlite:///var/icu.sqlite")
    )
    database_password_file: Annotated[SecretFile, "file with the database's password"] = (
        SecretFile()
    )
    redis_url: Annotated[RedisUrl, "address of Redis, which holds the queues"] = RedisUrl(
        "redis://127.0.0.1:6379/0"
    )
    redis_password_file: Annotated[SecretFile, "file with the password of Redis"] = SecretFile()
    hospital_url: Annotated[HttpUrl, "address of the stream's source, with or without /sub"] = (
        HttpUrl("http://127.0.0.1:8080")
    )
    model_url: Annotated[HttpUrl, "address of the model API"] = HttpUrl("http://127.0.0.1:5000")
    model_token_file: Annotated[SecretFile, "file with the token for the model API"] = SecretFile()
    acknowledge_url: Annotated[
        HttpUrl, "address of the gateway that gets acknowledgements; without it pages are read-only"
    ] = HttpUrl("")
    acknowledge_token_file: Annotated[SecretFile, "file with the token for ACKNOWLEDGE_URL"] = (
        SecretFile()
    )
    login_url: Annotated[
        HttpUrl,
        "address of the login service, if nginx uses it; then live updates end with the session",
    ] = HttpUrl("")
    host: Annotated[str, "address to listen on"] = msgspec.field(
        name="DASHBOARD_HOST", default="127.0.0.1"
    )
    port: Annotated[Port, "port to listen on"] = msgspec.field(name="DASHBOARD_PORT", default=5002)
    allowed_hosts: Annotated[
        HostNames, "allowed host names in requests, besides localhost, dashboard and IP addresses"
    ] = HostNames()
    log_level: Annotated[LogLevel, "DEBUG, INFO, WARNING or ERROR"] = LogLevel("INFO")
    log_format: Annotated[LogFormat, "text or json"] = "text"
