"""The pages that are kept up to date."""

import time

from dashboard.database import Database
from dashboard.rendering import Pages
from dashboard.views import PatientView, View, ViewKey, WardView

# A page that nobody reads is kept up to date for this time.
KEEP_SECONDS = 60.0
LIMIT = 50


class TooManyPages(Exception):
    """More different pages are read than can be kept up to date."""


class Shelf:
    """All views; always with the ward of the stream that is sent."""

    def __init__(self, database: Database, pages: Pages) -> None:
        self._database, self._pages = database, pages
        main = ViewKey(None, None)
        self.views: dict[ViewKey, View] = {main: WardView(main, database, pages)}

    def ward(self, stream: str | None) -> WardView:
        """The ward of a stream that is on the shelf."""
        view = self.views[ViewKey(stream, None)]
        assert isinstance(view, WardView)
        return view

    def make(self, key: ViewKey) -> View:
        """A new view, for which there is room; not on the shelf yet. Raises TooManyPages."""
        self.drop_unwanted()
        if len(self.views) >= LIMIT:
            idle = [view for view in self.views.values() if self._may_go(view)]
            if not idle:
                raise TooManyPages
            del self.views[min(idle, key=lambda view: view.wanted).key]
        kind = WardView if key.stay is None else PatientView
        return kind(key, self._database, self._pages)

    def drop_unwanted(self) -> None:
        """Removes the pages that nobody has read for a while."""
        limit = time.monotonic() - KEEP_SECONDS
        for view in list(self.views.values()):
            if self._may_go(view) and view.wanted < limit:
                del self.views[view.key]

    @staticmethod
    def _may_go(view: View) -> bool:
        return not view.readers and view.key != ViewKey(None, None)
