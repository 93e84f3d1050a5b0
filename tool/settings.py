"""The tool's settings, and the connections that they configure."""

from typing import Annotated

import msgspec
from redis import Redis

from tool.database import Database, connect
from tool.model_client import ModelClient
from wire import keys
from wire.settings import (
    DatabaseUrl,
    Days,
    HostNames,
    HttpUrl,
    LogFormat,
    LogLevel,
    Partitions,
    Port,
    RedisUrl,
    Seconds,
    SecretFile,
)


class Settings(msgspec.Struct, frozen=True):
    """The settings, which `wire.settings.read` reads from the environment."""

    # The default is the socket of `make run`, for commands such as `python -m tool replay`.
    redis_url: Annotated[RedisUrl, "address of Redis, which holds the queues"] = RedisUrl(
        "unix://var/redis/redis.sock"
    )
    redis_password_file: Annotated[SecretFile, "file with the password of Redis"] = SecretFile()
    database_url: Annotated[DatabaseUrl, "address of the database"] = DatabaseUrl(
        "sqlite:///var/icu.sqlite"
    )
    database_password_file: Annotated[SecretFile, "file with the password of the database"] = (
        SecretFile()
    )
    model_url: Annotated[
        HttpUrl, "address of the model API; default: port FRONT_PORT of this machine"
    ] = HttpUrl("")
    front_port: Annotated[Port, "port of the pages and the model API with `make run`"] = 5000
    # The file is read for each request, because it may be created or renewed later.
    model_token_file: Annotated[str, "file with the token for the model API"] = ""
    model_timeout: Annotated[Seconds, "seconds to wait for predictions"] = 2.0
    alarm_webhook: Annotated[HttpUrl, "URL to which each alarm is sent; empty: none"] = HttpUrl("")
    alarm_webhook_token_file: Annotated[str, "file with the token for that URL"] = ""
    partitions: Annotated[Partitions, "number of partitions"] = 2
    retention_days: Annotated[
        Days, "days for which `forget --expired` keeps a stay after its discharge; 0: for ever"
    ] = 0
    metrics_host: Annotated[str, "address to listen on for metrics"] = "127.0.0.1"
    metrics_port: Annotated[Port, "port of the metrics; 0: no metrics"] = msgspec.field(
        name="TOOL_METRICS_PORT", default=0
    )
    allowed_hosts: Annotated[
        HostNames, "allowed host names in requests, besides localhost, tool and IP addresses"
    ] = HostNames()
    log_level: Annotated[LogLevel, "DEBUG, INFO, WARNING or ERROR"] = LogLevel("INFO")
    log_format: Annotated[LogFormat, "text or json"] = "text"


def redis_of(settings: Settings) -> Redis:
    # The timeout is longer than the 5 s for which a worker waits for a job.
    password = settings.redis_password_file.secret
    return keys.connection(settings.redis_url, password, socket_timeout=8)


def database_of(settings: Settings) -> Database:
    return connect(settings.database_url, settings.database_password_file.secret)


def client_of(settings: Settings, pause_max: float = 8.0) -> ModelClient:
    url = settings.model_url or HttpUrl(f"http://127.0.0.1:{settings.front_port}")
    return ModelClient(url, settings.model_timeout, settings.model_token_file, pause_max)
