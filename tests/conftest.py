"""Fixtures for all tests, and the order in which the test files run."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

from tests.support import servers

# This is set before scikit-learn loads OpenMP. Otherwise its threads spin while they wait for a
# core.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Otherwise each TLS connection, such as those to MySQL, spends 50 ms on the system's root
# certificates. No test needs them.
os.environ["SSL_CERT_FILE"] = os.devnull
# Otherwise commands that run in a test would read the settings of the developer's pipeline.
os.environ["PYTHON_DOTENV_DISABLED"] = "1"

PROGRAMS = Path(__file__).parent / "support" / "no_telemetry"

# The files that need MySQL or MariaDB. One process runs all of them, so that each server starts
# once, and the tables are migrated once.
DATABASES = (
    *("test_migrations.py", "test_message_kinds.py", "test_training_database.py"),
    *("test_forget.py", "test_data_handler.py", "test_database.py", "test_alarms.py"),
    *("test_dashboard_mysql.py", "test_drift.py", "test_backfill.py", "test_probes.py"),
    *("test_modelapi_replicas.py", "test_model_client.py", "test_webhook.py"),
)
# These files take longest. They start first, so that all processes end at about the same time.
LONGEST = ("test_compose.py", "test_faults.py", "test_pipeline.py")


def needs_database_server(file: str) -> bool:
    return file.endswith(tuple(f"integration/{name}" for name in DATABASES))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def order(item: pytest.Item) -> tuple[bool, bool]:
        return (not needs_database_server(item.path.as_posix()), item.path.name not in LONGEST)

    items.sort(key=order)


class ByFile(LoadFileScheduling):
    """Runs the tests of a file in one process, and those of all files in `DATABASES` in the same
    one.
    """

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "databases" if needs_database_server(file) else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    return ByFile(config, log)


@pytest.fixture(scope="session", autouse=True)
def _no_telemetry() -> None:
    """Makes the programs that tests start import `sitecustomize.py` of this folder."""
    os.environ["PYTHONPATH"] = str(PROGRAMS)


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
