"""Fixtures for the tests with one real server or program."""

from collections.abc import Callable

import pytest

from tool.database import connect


@pytest.fixture(params=["sqlite", "mysql"])
def url(request: pytest.FixtureRequest, new_database: Callable[[str], str]) -> str:
    """The URL of a database with the pipeline's empty tables, on SQLite and on MySQL."""
    found = new_database(request.param)
    database = connect(found)
    database.create_tables()
    database.close()
    return found
