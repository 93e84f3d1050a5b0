"""The pages that are kept up to date."""

import time

from dashboard.database import Database
from dashboard.rendering import Pages
from dashboard.views import PatientView, View, ViewKey, WardView

# Seconds for which a page is kept up to date after it is closed.
KEEP_SECONDS = 60.0
# Maximum number of views.
LIMIT = 50


class TooManyPages(Exception):
    """Too many different pages are open; they cannot all be kept up to date."""


class Shelf:
    """All views that are kept up to date; the ward of the current stream always is."""

    def __init__(self, database: Database, pages: Pages) -> None:
        self._database, self._pages = database, pages
        main = ViewKey(None, None)
        self.views: dict[ViewKey, View] = {main: WardView(main, database, pages)}

    def ward(self, stream: str | None) -> WardView:
        """The ward view of a stream. The view must exist."""
        view = self.views[ViewKey(stream, None)]
        assert isinstance(view, WardView)
        return view

    def make(self, key: ViewKey) -> View:
        """Creates a view and makes room for it; the caller adds it to the shelf. Raises
        TooManyPages.
        """
        self.drop_unwanted()
        if len(self.views) >= LIMIT:
            idle = [view for view in self.views.values() if self._may_go(view)]
            if not idle:
                raise TooManyPages
            del self.views[min(idle, key=lambda view: view.wanted).key]
        kind = WardView if key.stay is None else PatientView
        return kind(key, self._database, self._pages)

    def drop_unwanted(self) -> None:
        """Removes the pages that were closed some time ago."""
        limit = time.monotonic() - KEEP_SECONDS
        for view in list(self.views.values()):
            if self._may_go(view) and view.wanted < limit:
                del self.views[view.key]

    @staticmethod
    def _may_go(view: View) -> bool:
        return not view.readers and view.key != ViewKey(None, None)
