"""Sends acknowledgements to the gateway."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

from dashboard.http_services import ERRORS


class NotSent(Exception):
    """The gateway did not accept the message; the text is the reason."""


class Acknowledger:
    """Posts messages to a gateway."""

    def __init__(self, session: aiohttp.ClientSession, url: str, token_file: str) -> None:
        self._session = session
        self._url = f"{url}/messages"
        self._token_file = token_file

    async def send(self, message: Mapping[str, Any]) -> None:
        """Posts the message. Raises NotSent."""
        try:
            headers = {}
            if self._token_file:
                token = Path(self._token_file).read_text(encoding="utf-8").strip()
                headers["Authorization"] = f"Bearer {token}"
            async with self._session.post(
                self._url, json=dict(message), headers=headers
            ) as response:
                if response.status not in (200, 201):
                    raise NotSent(f"the gateway answered {response.status}")
        except ERRORS as error:
            raise NotSent(str(error) or type(error).__name__) from None
