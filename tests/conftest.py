"""Fixtures for all tests, and the order in which the test files run."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import servers

# This is set before scikit-learn loads OpenMP. Otherwise its threads spin while they wait for a
# core.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Otherwise each TLS connection, such as those to MySQL, spends 50 ms on the system's root
# certificates. No test needs them.
os.environ["SSL_CERT_FILE"] = os.devnull
# Otherwise commands that run in a test would read the settings of the developer's pipeline.
os.environ["PYTHON_DOTENV_DISABLED"] = "1"

# These files take longest. They start first, so that all workers end at about the same time.
LONGEST = ("test_pipeline.py", "test_faults.py", "test_compose.py", "test_modelapi_openapi.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session")
def mysql_server() -> Iterator[int]:
    """The port of a MySQL server whose user root has no password. Without Docker, the test is
    skipped, or fails in CI.
    """
    with servers.mysql_server() as port:
        yield port


@pytest.fixture(scope="session")
def mariadb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a MariaDB server whose user root has no password. Without MariaDB, the test is
    skipped, or fails in CI.
    """
    with servers.mariadb_server(tmp_path_factory.mktemp("mariadb")) as port:
        yield port


@pytest.fixture(scope="session")
def new_database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], str]:
    """A function that creates an empty `sqlite`, `mysql` or `mariadb` database and returns its
    URL.
    """
    folder: Path = tmp_path_factory.mktemp("databases")

    def port(kind: str) -> int:
        found: int = request.getfixturevalue(f"{kind}_server")
        return found

    return lambda kind: servers.new_database(kind, port, folder)
