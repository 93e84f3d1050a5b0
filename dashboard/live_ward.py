"""The gateway of a live ward: its senders, their clocks, and the codes that it does not know."""

from collections import deque

import msgspec

from dashboard import formats
from dashboard.http_services import Health
from dashboard.services import is_live
from dashboard.topic import Content

RATE_SECONDS = 10.0
# The same time as in the alert SenderSilent.
SILENT_SECONDS = 900.0
CODES_SHOWN = 20


class Sender(msgspec.Struct):
    """A sender. last: the time of its last message, in seconds since 1970; None if there was none.
    clock_difference: seconds by which the sender's clock is ahead of the gateway's.
    """

    sender: str
    messages: int
    last: float | None
    clock_difference: float | None


class Gateway(msgspec.Struct):
    """The answer of the gateway to GET /health."""

    senders: list[Sender]
    nacks: int
    unknown_codes: dict[str, int]


class LiveWard:
    """The elements of the pipeline page about the gateway; none if hospital sends the stream."""

    def __init__(self) -> None:
        self._totals: deque[tuple[float, int]] = deque()

    def content(self, source: Health, at: float, now: float) -> Content:
        """The elements, from the source's answer. at: seconds of a monotonic clock. now: seconds
        since 1970."""
        if not is_live(source.answer):
            return {}
        try:
            gateway = msgspec.convert(source.answer, Gateway)
        except msgspec.ValidationError:
            return {}
        codes = sorted(gateway.unknown_codes.items(), key=lambda item: -item[1])
        content: dict[str, dict[str, str]] = {
            "gateway": {
                "rate": f"{self._rate(at, gateway):.1f}",
                "nacks": formats.count(gateway.nacks),
                "codes": formats.count(len(codes)),
            }
        }
        for index, sender in enumerate(sorted(gateway.senders, key=lambda each: each.sender)):
            content[f"sender:{index}"] = _fields(sender, now)
        for index, (code, count) in enumerate(codes[:CODES_SHOWN]):
            content[f"code:{index}"] = {"code": code, "count": formats.count(count)}
        return content

    def _rate(self, at: float, gateway: Gateway) -> float:
        """Messages per second over the last RATE_SECONDS."""
        total = sum(sender.messages for sender in gateway.senders)
        if self._totals and self._totals[-1][1] > total:  # the gateway was restarted
            self._totals.clear()
        self._totals.append((at, total))
        while at - self._totals[0][0] > RATE_SECONDS:
            self._totals.popleft()
        began, before = self._totals[0]
        return (total - before) / (at - began) if at > began else 0.0


def _fields(sender: Sender, now: float) -> dict[str, str]:
    silence = None if sender.last is None else max(0.0, now - sender.last)
    difference = sender.clock_difference
    silent = silence is not None and silence > SILENT_SECONDS
    return {
        "name": sender.sender,
        "messages": formats.count(sender.messages),
        "last": "—" if silence is None else f"{formats.seconds(silence)} ago",
        "state": "silent" if silent else "up",
        "word": "silent" if silent else "",
        "clock": "—" if difference is None else _difference(difference),
    }


def _difference(seconds: float) -> str:
    """A clock difference with its sign.

    >>> _difference(0.24), _difference(-6717.0)
    ('0.2 s', '−112 min')
    """
    if abs(seconds) < 10:
        return f"{formats.number(seconds, 1)} s"
    return f"{formats.MINUS if seconds < 0 else ''}{formats.seconds(abs(seconds))}"
