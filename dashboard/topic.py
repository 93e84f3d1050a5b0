"""The content of one page: elements with fields. Each field has the version of its last change.

A browser sends its version and gets all changes since then. The same mechanism serves a first
visit, a live update, a slow browser and a reconnect after hours. It needs neither state per browser
nor a log of events.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

Value = Any  # any JSON value
Fields = Mapping[str, Value]
Content = Mapping[str, Fields]

Renderer = Callable[[str, Fields], str]

# Maximum number of cached answers. Most browsers have the newest version or the one before; only
# those that reconnect have older versions.
ANSWERS_KEPT = 32


class Topic:
    """The content of one page, in order. read_at: the time when its data was read, in seconds of
    the poller's clock.

    An element `ward:17` is an entry of the page's list `ward`. `renderers` has, for each list, the
    function that renders a new entry. An element without a colon is always on the page.
    """

    def __init__(self, renderers: Mapping[str, Renderer] | None = None) -> None:
        self._renderers = renderers or {}
        self._fields: dict[str, dict[str, tuple[Value, int]]] = {}
        self._born: dict[str, int] = {}
        self._order_at = 0
        self._changed = asyncio.Event()
        self._answers: dict[int, bytes] = {}
        self.version = 0
        self.read_at = 0.0

    @property
    def content(self) -> dict[str, dict[str, Value]]:
        return {
            element: {name: value for name, (value, _) in fields.items()}
            for element, fields in self._fields.items()
        }

    def update(self, content: Content, version: int, read_at: float) -> None:
        """Replaces the content and its order. `version` must be greater than all earlier ones."""
        self.read_at = read_at
        order = list(self._fields)
        changed = False
        fields: dict[str, dict[str, tuple[Value, int]]] = {}
        for element, new in content.items():
            old = self._fields.get(element)
            if old is None:
                self._born[element] = version
                old = {}
                changed = True
            stamped = {}
            for name, value in new.items():
                before = old.get(name)
                if before is None or before[0] != value:
                    stamped[name] = (value, version)
                    changed = True
                else:
                    stamped[name] = before
            fields[element] = stamped
        for element in self._fields.keys() - fields.keys():
            del self._born[element]
        self._fields = fields
        if order != list(fields):
            self._order_at = version
            changed = True
        if changed:
            self.version = version
            self._answers.clear()
            self._changed.set()
            self._changed = asyncio.Event()

    def renew(self, element: str) -> None:
        """Makes the next update send all fields of an element again. A browser cannot know that a
        field is gone, because it only gets changes."""
        self._fields.pop(element, None)
        self._born.pop(element, None)

    def set(self, element: str, fields: Fields, version: int) -> None:
        """Replaces the fields of one element, if the topic has it."""
        if element in self._fields:
            self.update(self.content | {element: fields}, version, self.read_at)

    def since(self, version: int) -> dict[str, Any]:
        """The changes after `version`, under three keys, each only if there is a change: `html` has
        the new elements, `set` the changed fields of the other elements, and `order` the order of
        all elements.
        """
        answer: dict[str, Any] = {}
        for element, fields in self._fields.items():
            if self._born[element] > version and (render := self._renderer(element)):
                values = {name: value for name, (value, _) in fields.items()}
                answer.setdefault("html", {})[element] = render(element, values)
                continue
            values = {name: value for name, (value, at) in fields.items() if at > version}
            if values:
                answer.setdefault("set", {})[element] = values
        if self._order_at > version:
            answer["order"] = list(self._fields)
        return answer

    def answer(self, version: int) -> bytes:
        """The result of `since` as JSON, cached for all browsers at the same version."""
        found = self._answers.get(version)
        if found is None:
            if len(self._answers) >= ANSWERS_KEPT:
                self._answers.clear()
            text = json.dumps(self.since(version), separators=(",", ":"), ensure_ascii=False)
            self._answers[version] = found = text.encode("utf-8", "replace")
        return found

    def _renderer(self, element: str) -> Renderer | None:
        name, colon, _ = element.partition(":")
        return self._renderers.get(name) if colon else None

    async def changed(self, version: int, wait: float) -> bool:
        """Waits for a version newer than `version`; returns False on a timeout."""
        if self.version > version:
            return True
        try:
            await asyncio.wait_for(self._changed.wait(), wait)
        except TimeoutError:
            return False
        return True
