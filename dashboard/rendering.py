"""Renders the pages. The same template renders a list entry for the first load and for updates."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from dashboard.topic import Fields

TEMPLATES = Path(__file__).parent / "templates"


class Pages:
    """The templates."""

    def __init__(self) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(TEMPLATES),
            autoescape=select_autoescape(),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._entries = self._environment.get_template("entries.html").module

    def page(self, name: str, **values: object) -> str:
        """Renders the template `name`.html as a whole page."""
        return self._environment.get_template(f"{name}.html").render(**values)

    def entry(self, macro: str, key: str, fields: Fields, **values: object) -> str:
        """Renders an entry of a list with a macro of entries.html."""
        return str(getattr(self._entries, macro)(key, fields, **values)).strip()
