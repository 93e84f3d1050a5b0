"""The model API's settings."""

from pathlib import Path
from typing import Annotated, Self

import msgspec

from wire.settings import File, HostNames, LogFormat, LogLevel, Parsed, SecretFile, Url, whole


class Folder(Parsed, str):
    """The path of an existing folder."""

    expected = "an existing folder"

    @classmethod
    def parse(cls, text: str) -> Self:
        if not Path(text).is_dir():
            raise ValueError
        return cls(text)


class MySQLUrl(Url):
    """The address of a MySQL database."""

    expected = "mysql://USER@HOST:PORT/DATABASE"


class Settings(msgspec.Struct, frozen=True):
    """The settings, which `wire.settings.read` reads from the environment."""

    models: Annotated[Folder, "folder with the models"] = Folder("models")
    model_state: Annotated[Path, "file with the models in use and their history"] = Path(
        "var/models.sqlite"
    )
    model_state_url: Annotated[MySQLUrl, "MySQL instead of MODEL_STATE, for several replicas"] = (
        MySQLUrl()
    )
    model_state_password_file: Annotated[
        SecretFile, "file with the password of MODEL_STATE_URL"
    ] = SecretFile()
    token_key_file: Annotated[
        File, "file with a secret or public key; with it, requests need a token"
    ] = msgspec.field(name="MODEL_TOKEN_KEY_FILE", default=File())
    host: Annotated[str, "address to listen on"] = msgspec.field(
        name="MODELAPI_HOST", default="127.0.0.1"
    )
    port: Annotated[
        int,
        msgspec.Meta(ge=1, le=65_535, description="a port, 1 to 65535"),
        "port to listen on",
    ] = msgspec.field(name="MODELAPI_PORT", default=5000)
    workers: Annotated[int, whole(1, 64), "worker processes"] = msgspec.field(
        name="MODELAPI_WORKERS", default=2
    )
    allowed_hosts: Annotated[
        HostNames, "allowed host names in requests, besides localhost, modelapi and IP addresses"
    ] = HostNames()
    log_level: Annotated[LogLevel, "DEBUG, INFO, WARNING or ERROR"] = LogLevel("INFO")
    log_format: Annotated[LogFormat, "text or json"] = "text"
