"""The buffer's settings."""

from typing import Annotated

import msgspec

from wire.settings import (
    HostNames,
    HttpUrl,
    LogFormat,
    LogLevel,
    Partitions,
    Port,
    RedisUrl,
    SecretFile,
    whole,
)


class Settings(msgspec.Struct, frozen=True):
    """The settings, which `wire.settings.read` reads from the environment."""

    stream_url: Annotated[HttpUrl, "the stream to follow"] = HttpUrl("http://127.0.0.1:8080/sub")
    redis_url: Annotated[RedisUrl, "address of Redis, which holds the queues"] = RedisUrl(
        "redis://127.0.0.1:6379/0"
    )
    redis_password_file: Annotated[SecretFile, "file with the password of Redis"] = SecretFile()
    partitions: Annotated[Partitions, "number of partitions"] = 2
    batch_max: Annotated[int, whole(1, 100_000), "maximum number of messages in a batch"] = 5_000
    queue_max: Annotated[
        int, whole(1, 10_000_000), "number of waiting messages at which reading stops"
    ] = 100_000
    metrics_host: Annotated[str, "address to listen on for metrics"] = "127.0.0.1"
    metrics_port: Annotated[Port, "port of the metrics; 0: no metrics"] = msgspec.field(
        name="BUFFER_METRICS_PORT", default=0
    )
    allowed_hosts: Annotated[
        HostNames, "allowed host names in requests, besides localhost, buffer and IP addresses"
    ] = HostNames()
    log_level: Annotated[LogLevel, "DEBUG, INFO, WARNING or ERROR"] = LogLevel("INFO")
    log_format: Annotated[LogFormat, "text or json"] = "text"
