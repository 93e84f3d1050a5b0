"""Sends acknowledgements to the gateway."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

from dashboard.http_services import ERRORS

log = logging.getLogger(__name__)


class NotSent(Exception):
    """The message was not sent, or the gateway did not accept it; the text is the reason."""


class Acknowledger:
    """Posts messages to a gateway."""

    def __init__(self, session: aiohttp.ClientSession, url: str, token_file: str) -> None:
        self._session = session
        self._url = f"{url}/messages"
        self._token_file = token_file

    async def send(self, message: Mapping[str, Any]) -> None:
        """Posts the message. Raises NotSent."""
        try:
            async with self._session.post(
                self._url, json=dict(message), headers=self._headers()
            ) as response:
                if response.status not in (200, 201):
                    raise NotSent(f"the gateway answered {response.status}")
        except TimeoutError:
            raise NotSent("the gateway does not answer in time") from None
        except ERRORS as error:
            log.warning("an acknowledgement was not sent: %s", error)
            raise NotSent("the gateway does not answer; please try again") from None

    def _headers(self) -> dict[str, str]:
        """The headers with the token. Reads the file for each request, because tokens are
        renewed."""
        if not self._token_file:
            return {}
        try:
            token = Path(self._token_file).read_text(encoding="utf-8").strip()
        except OSError as error:
            log.warning("the token for the gateway cannot be read: %s", error)
            raise NotSent("the token for the gateway cannot be read") from None
        return {"Authorization": f"Bearer {token}"}
