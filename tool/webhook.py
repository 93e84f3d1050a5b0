"""Sends alarms to a URL until the receiver accepts them; those of a stay are sent in order.

The transaction that computes an alarm also adds it to table `outbox`. After a crash an alarm may be
sent again, with the same `Idempotency-Key`.
"""

import logging

import msgspec
import urllib3

from tool import metrics
from tool.database import Database
from tool.database.alarms import AlarmTables
from wire.settings import bearer, without_password
from wire.tables import AlarmRow

log = logging.getLogger("tool.webhook")

AT_ONCE = 200  # maximum number of alarms per query
TIMEOUT = urllib3.Timeout(connect=2.0, read=5.0)  # seconds


class NotAccepted(Exception):
    """The receiver did not answer, or not with a 2xx status, or the token cannot be read."""


class Webhook:
    """Posts alarms as JSON. token_file: a file with a token for the receiver, read at each
    request."""

    def __init__(self, database: Database, url: str, token_file: str = "") -> None:
        self._tables = AlarmTables(database)
        self._url = url
        self._token_file = token_file
        self._pool = urllib3.PoolManager(maxsize=1, retries=False)

    def send(self) -> None:
        """Sends the alarms in the outbox. Raises NotAccepted or DatabaseError; unsent alarms stay
        in the outbox."""
        while alarms := self._tables.unsent(AT_ONCE):
            metrics.UNSENT.set(len(alarms))
            for alarm in alarms:
                self._post(alarm)
                self._tables.sent(alarm)
                metrics.SENT.inc()
        metrics.UNSENT.set(0)

    def _post(self, alarm: AlarmRow) -> None:
        headers = {"Content-Type": "application/json", "Idempotency-Key": key_of(alarm)}
        try:
            headers |= bearer(self._token_file)
            response = self._pool.request(
                "POST",
                self._url,
                body=msgspec.json.encode(alarm),
                headers=headers,
                timeout=TIMEOUT,
                redirect=False,
            )
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise NotAccepted(f"{without_password(self._url)}: {error}") from None
        if not 200 <= response.status < 300:
            raise NotAccepted(f"{without_password(self._url)} answered {response.status}")


def key_of(alarm: AlarmRow) -> str:
    """The key of an alarm event. It is the same if the event is sent again."""
    return f"{alarm.stream}-{alarm.seq}/{alarm.model}/{alarm.version}"
