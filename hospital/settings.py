"""Hospital's settings."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from wire.settings import HostNames, LogFormat, LogLevel, Port, Rate, whole


class Settings(msgspec.Struct, frozen=True):
    """The settings, which `wire.settings.read` reads from the environment."""

    patient_data: Annotated[Path, "folder with age.csv, admission.csv and signal.csv"] = Path(
        "patient_data"
    )
    derived_data: Annotated[Path, "folder of all_data.csv if PATIENT_DATA is not writable"] = Path(
        "var/derived"
    )
    date_format: Annotated[
        str, "dd/mm/YYYY or mm/dd/YYYY, for dates with the year last; unset: day first"
    ] = ""
    replay_rate: Annotated[Rate, "messages per second, e.g. 50 or 0.5; 0 is full speed"] = 50.0
    replay_mode: Annotated[
        Literal["live", "hindsight"],
        "live: each discharge is sent when it happens; hindsight: readings include it",
    ] = "live"
    replay_number: Annotated[
        int,
        whole(1, 1_000_000_000),
        "number of the replay; another number replays the same input as a new stream",
    ] = 1
    host: Annotated[str, "address to listen on"] = msgspec.field(
        name="HOSPITAL_HOST", default="127.0.0.1"
    )
    port: Annotated[Port, "port to listen on; 0: any free one"] = msgspec.field(
        name="HOSPITAL_PORT", default=8080
    )
    allowed_hosts: Annotated[
        HostNames, "allowed host names in requests, besides localhost, hospital and IP addresses"
    ] = HostNames()
    log_level: Annotated[LogLevel, "DEBUG, INFO, WARNING or ERROR"] = LogLevel("INFO")
    log_format: Annotated[LogFormat, "text or json"] = "text"
