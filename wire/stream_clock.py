"""The time of a message on the stream's own clock."""

from datetime import date
from typing import Annotated

import msgspec
from msgspec import Meta

from wire.messages import Sixty


class _Clock(msgspec.Struct):
    day: str
    type: str = ""
    hour: Annotated[int, Meta(ge=0, le=24)] | None = None
    minute: Sixty = 0
    second: Sixty = 0


_clock = msgspec.json.Decoder(_Clock)
_EPOCH = date(1970, 1, 1).toordinal()


def stream_clock(data: bytes) -> float | None:
    """A message's time on the stream's clock, in seconds since 1970; None without a valid time.

    >>> stream_clock(b'{"type":"reading","day":"1970-01-02","hour":1,"minute":1}')
    90060.0
    """
    try:
        at = _clock.decode(data)
        days = date.fromisoformat(at.day).toordinal() - _EPOCH
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        return None
    hour = at.hour
    if hour is None:
        hour = 24 if at.type == "discharge" else 0
    return days * 86_400.0 + hour * 3_600.0 + at.minute * 60.0 + at.second
