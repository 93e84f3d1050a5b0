"""The pages' HTML. An entry of a list has one template, for the first page and for later ones."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from dashboard.topic import Fields

TEMPLATES = Path(__file__).parent / "templates"


class Pages:
    """Templates, loaded once."""

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
        """A whole page from the template `name`.html."""
        return self._environment.get_template(f"{name}.html").render(**values)

    def entry(self, macro: str, key: str, fields: Fields, **values: object) -> str:
        """An entry of a list, from the macro of that name in entries.html."""
        return str(getattr(self._entries, macro)(key, fields, **values)).strip()
