"""Fixtures for the tests with one real server or program."""

from collections.abc import Callable

import pytest

from tests.support.seeded_ward import create_tables
from tests.support.servers import copies


@pytest.fixture(scope="session")
def with_tables(new_database: Callable[[str], str]) -> Callable[[str], str]:
    """A function that creates a `sqlite`, `mysql` or `mariadb` database with the pipeline's empty
    tables, and returns its URL.
    """
    return copies(new_database, create_tables)


@pytest.fixture(params=["sqlite", "mysql"])
def url(request: pytest.FixtureRequest, with_tables: Callable[[str], str]) -> str:
    """The URL of a database with the pipeline's empty tables: once SQLite, once MySQL."""
    return with_tables(request.param)
