"""Sends acknowledgements to the gateway."""

import logging
from collections.abc import Mapping
from typing import Any

import aiohttp

from dashboard.http_services import ERRORS
from wire.settings import SecretFile, bearer

log = logging.getLogger(__name__)


class NotSent(Exception):
    """The message was not sent, or the gateway did not accept it; the text is the reason."""


class Acknowledger:
    """Posts messages to a gateway."""

    def __init__(self, session: aiohttp.ClientSession, url: str, token: SecretFile) -> None:
        self._session = session
        self._url = f"{url}/messages"
        self._token = token

    async def send(self, message: Mapping[str, Any]) -> None:
        """Posts the message. Raises NotSent."""
        try:
            await self._post(message)
        except NotSent as error:
            log.warning("an acknowledgement was not sent: %s", error.__cause__ or error)
            raise

    async def _post(self, message: Mapping[str, Any]) -> None:
        try:
            headers = bearer(self._token)
        except (OSError, ValueError) as error:
            raise NotSent("the token for the gateway cannot be read") from error
        try:
            async with self._session.post(
                self._url, json=dict(message), headers=headers
            ) as response:
                if response.status not in (200, 201):
                    raise NotSent(f"the gateway answered {response.status}")
        except TimeoutError:
            raise NotSent("the gateway does not answer in time") from None
        except ERRORS as error:
            raise NotSent("the gateway does not answer; please try again") from error
