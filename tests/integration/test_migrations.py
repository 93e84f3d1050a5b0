"""Tests the upgrade of a database of version 1 with rows, on SQLite, MySQL and MariaDB.

The dumps in version_1/ are from the tool before its tables had versions: two streams, a discharge,
rejected messages, pending predictions, and names that differ in case.
"""

import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic import op
from alembic.config import Config
from alembic.script import ScriptDirectory

from embedded.programs import ROOT
from tests.support.batches import DECLARATION, batch, handler_of, message
from tests.support.servers import as_root, rows
from tool.database import Outdated, PermanentFailure, Unavailable, connect
from tool.database.alarms import AlarmChanges, AlarmTables, Part
from tool.database.versions import MIGRATIONS, VERSIONS
from tool.declarations import model_rows
from tool.forget import forget
from wire.database import is_sqlite, sqlite_path
from wire.tables import KEYS, TABLES, columns

pytestmark = pytest.mark.timeout(240, func_only=True)

DUMPS = Path(__file__).parent / "version_1"
OLD_TABLES = (
    *("readings", "stays", "vitals", "predictions", "pending", "rejected", "positions", "models"),
)
Rows = dict[str, list[tuple[Any, ...]]]
VALUES = "stream, seq, model, version, feature, value FROM prediction_features"


@pytest.fixture(params=["sqlite", "mysql", "mariadb"])
def kind(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def empty(kind: str, new_database: Callable[[str], str]) -> Callable[[], str]:
    return lambda: new_database(kind)


@pytest.fixture
def current(kind: str, with_tables: Callable[[str], str]) -> Callable[[], str]:
    """A function that creates a database of the newest version without rows and returns its URL."""
    return lambda: with_tables(kind)


@pytest.fixture
def old(kind: str, empty: Callable[[], str]) -> Callable[[], str]:
    """A function that creates a database of version 1 with rows and returns its URL."""

    def make() -> str:
        url, dump = empty(), (DUMPS / f"{kind}.sql").read_text()
        if is_sqlite(url):
            with closing(sqlite3.connect(sqlite_path(url))) as connection:
                connection.executescript(dump)
        else:
            with closing(server(url)) as connection:
                connection.autocommit = False
                cursor = connection.cursor()
                for statement in dump.split(";\n"):
                    if statement.strip():
                        cursor.execute(statement)
                connection.commit()
        return url

    return make


def server(url: str) -> Any:
    place, _, name = url.rpartition("@")[2].partition("/")
    return as_root(int(place.rpartition(":")[2]), database=name)


def upgrade(url: str) -> None:
    with closing(connect(url)) as database:
        database.create_tables()


def everything(url: str, names: dict[str, str]) -> Rows:
    return {
        table: rows(url, f"SELECT {some} FROM {table} ORDER BY {some}")
        for table, some in names.items()
    }


def old_columns(url: str) -> dict[str, str]:
    """The columns of each table of version 1, in backticks."""
    if is_sqlite(url):
        found = {t: [row[1] for row in rows(url, f"PRAGMA table_info({t})")] for t in OLD_TABLES}
    else:
        found = {t: [row[0] for row in rows(url, f"SHOW COLUMNS FROM {t}")] for t in OLD_TABLES}
    return {table: ", ".join(f"`{name}`" for name in names) for table, names in found.items()}


def shape(url: str) -> list[Any]:
    """The definition of each table, as the server describes it."""
    if is_sqlite(url):
        return rows(url, "SELECT name, sql FROM sqlite_master ORDER BY name")
    tables = sorted(name for (name,) in rows(url, "SHOW TABLES"))
    return [rows(url, f"SHOW CREATE TABLE {table}") for table in tables]


def without_features(before: Rows, names: dict[str, str]) -> Rows:
    """The rows without the features, whose format has changed since version 1."""
    place = names["predictions"].split(", ").index("`features`")
    predictions = [(*row[:place], *row[place + 1 :]) for row in before["predictions"]]
    return before | {"predictions": predictions}


def values(before: Rows) -> list[tuple[Any, ...]]:
    """Each value of each prediction of version 1, in which features are objects."""
    found = [
        (*row[:4], name, value)
        for row in before["predictions"]
        for name, value in json.loads(row[7]).items()
    ]
    return sorted(found, key=str)


def check_upgraded(url: str, names: dict[str, str], before: Rows) -> None:
    now = {table: some.replace("`probability`", "`output`") for table, some in names.items()}
    assert without_features(everything(url, now), names) == without_features(before, names)
    assert sorted(rows(url, f"SELECT {VALUES}"), key=str) == values(before)
    assert len(before["readings"]) == 10
    assert rows(url, "SELECT version_num FROM alembic_version") == [(VERSIONS[-1],)]
    assert rows(url, "SELECT stream, seq, model, version FROM pending ORDER BY seq") == [
        ("5f2c9e01", 8, "risk", "1"),
        ("5f2c9e01", 10, "risk", "1"),
    ]
    assert rows(url, "SELECT DISTINCT identifier, place FROM stays") == [(None, None)]
    for table in TABLES:
        assert rows(url, f"SELECT COUNT({KEYS[table][0]}) FROM {table}")[0][0] == len(
            before.get(table, [])
        )


def test_a_database_of_version_1_keeps_every_row(old: Callable[[], str]) -> None:
    url = old()
    names = old_columns(url)
    before = everything(url, names)
    upgrade(url)
    check_upgraded(url, names, before)
    upgrade(url)
    check_upgraded(url, names, before)


def test_a_reading_can_have_predictions_of_two_versions_of_a_model(old: Callable[[], str]) -> None:
    url = old()
    upgrade(url)
    statement = "INSERT INTO predictions SELECT stream, seq, model, '2', pat_id, date_admission,"
    rest = " measured_at, features, output, reason, created_at, NULL, NULL FROM predictions"
    rows(url, f"{statement}{rest} WHERE model = 'risk'")
    found = rows(url, "SELECT version, COUNT(*) FROM predictions WHERE model = 'risk' GROUP BY 1")
    assert found == [("1", 9), ("2", 9)]


def test_the_view_shows_predictions_beside_those_of_the_champion(
    old: Callable[[], str],
) -> None:
    url = old()
    upgrade(url)
    rows(url, "UPDATE models SET role = 'shadow'")
    rows(url, "UPDATE models SET role = 'champion' WHERE model = 'risk'")
    probabilities = {
        (stream, seq, model): output
        for stream, seq, model, output in rows(
            url, "SELECT stream, seq, model, output FROM predictions"
        )
    }
    expected = [
        (stream, seq, p, model, q, None if p is None or q is None else q - p)
        for (stream, seq, model), q in probabilities.items()
        if model != "risk"
        for p in [probabilities[stream, seq, "risk"]]
    ]
    found = rows(
        url,
        "SELECT stream, seq, champion_probability, model, probability, difference"
        " FROM predictions_side_by_side WHERE champion = 'risk'",
    )
    assert len(found) == 9
    assert sorted(found, key=str) == sorted(expected, key=str)


def test_a_score_is_not_stored_as_a_probability(old: Callable[[], str]) -> None:
    url = old()
    for table in ("models", "predictions"):
        rows(url, f"UPDATE {table} SET model = 'news2', version = '2017' WHERE model = 'risk'")
    rows(url, "DELETE FROM pending")
    outputs = "SELECT stream, seq, model, {} FROM {} ORDER BY stream, seq, model"
    before = rows(url, outputs.format("probability", "predictions"))
    upgrade(url)
    found = rows(url, outputs.format("probability, score, maximum", "prediction_outputs"))
    assert found == [
        (*key, model, None, None if output is None else round(20 * output), 20)
        if model == "news2"
        else (*key, model, output, None, None)
        for *key, model, output in before
    ]
    assert any(score for *_, score, _ in found)
    beside = "score, champion_score, probability, champion_probability, difference"
    found = rows(url, f"SELECT {beside} FROM predictions_side_by_side WHERE champion = 'news2'")
    assert found
    for score, champion_score, probability, champion_probability, difference in found:
        assert (score, champion_probability, difference) == (None, None, None)
        assert champion_score is None or champion_score == 8
        assert probability is not None


def test_the_documented_queries_read_only_the_latest_stream(
    old: Callable[[], str],
) -> None:
    url = old()
    upgrade(url)
    rows(url, "UPDATE models SET role = 'champion' WHERE model = 'risk'")
    rows(url, "UPDATE stays SET date_discharge = NULL")
    rows(url, "UPDATE positions SET committed_at = '2026-11-26 00:00:00' WHERE seq = 1")
    text = (ROOT / "docs/data.md").read_text()
    latest, _, parameters, _ = (
        rows(url, query) for query in re.findall(r"^mysql> (.*?);$", text, re.DOTALL | re.MULTILINE)
    )
    stream = "SELECT stream FROM positions ORDER BY committed_at DESC LIMIT 1"
    known = "model = 'risk' AND output IS NOT NULL"
    patients = rows(
        url, f"SELECT DISTINCT pat_id FROM predictions WHERE stream = ({stream}) AND {known}"
    )
    assert {(pat_id,) for pat_id, *_ in latest} == set(patients)
    assert len(latest) == len(patients) > 0
    counted = rows(url, f"SELECT COUNT(*) FROM readings WHERE stream = ({stream})")
    assert sum(row[1] for row in parameters) == counted[0][0]


class Killed(BaseException):
    """Stands for SIGKILL: no code of the tool handles this exception."""


def test_an_upgrade_resumes_after_a_kill_between_statements(
    old: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    execute, left = op.execute, 10_000

    def failing(statement: str) -> None:
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1
        execute(statement)

    monkeypatch.setattr(op, "execute", failing)
    upgrade(old())
    total = 10_000 - left
    # These points are inside the second step, before and after the table of predictions is
    # replaced, and inside the last step.
    first = len(OLD_TABLES) + 1
    for statements in (*range(first, first + 5, 2), total - 18, total - 17, total - 15, total - 8):
        url = old()
        names = old_columns(url)
        before = everything(url, names)
        left = statements
        with pytest.raises(Killed):
            upgrade(url)
        left = 10_000
        upgrade(url)
        check_upgraded(url, names, before)


def test_learned_hours_of_an_old_alarm_state_count_from_the_first_reading(
    old: Callable[[], str],
) -> None:
    url = old()
    upgrade(url)
    rows(url, "ALTER TABLE alarm_state DROP COLUMN first_at")
    rows(url, "UPDATE alembic_version SET version_num = '0006'")
    stay = "SELECT stream, pat_id, date_admission, 'risk', '1', 1, MAX(measured_at), NULL"
    rest = "NULL, NULL, NULL, NULL, NULL FROM readings GROUP BY stream, pat_id, date_admission"
    rows(url, f"INSERT INTO alarm_state {stay}, {rest}")
    upgrade(url)
    statement = "pat_id, date_admission, stream, {} FROM {} ORDER BY 1, 2, 3"
    found = rows(url, "SELECT " + statement.format("first_at", "alarm_state"))
    of_stay = "readings GROUP BY 1, 2, 3"
    assert found == rows(url, "SELECT " + statement.format("MIN(measured_at)", of_stay))
    assert found


def test_features_that_the_model_no_longer_reads_keep_their_names(
    old: Callable[[], str],
) -> None:
    url = old()
    rows(url, """UPDATE models SET features = '[{"name": "other"}]' WHERE model = 'risk'""")
    before = everything(url, old_columns(url))
    upgrade(url)
    kept = rows(url, "SELECT features FROM predictions WHERE model = 'risk' ORDER BY stream, seq")
    predicted = [row for row in before["predictions"] if row[2] == "risk"]
    assert [json.loads(text) for (text,) in kept] == [json.loads(row[7]) for row in predicted]
    shown = rows(url, f"SELECT {VALUES}")
    assert sorted(shown, key=str) == [row for row in values(before) if row[2] == "risk shadow"]
    # From these features, the model cannot predict.
    assert rows(url, "SELECT 1 FROM pending") == []
    reasons = rows(url, "SELECT DISTINCT reason FROM predictions WHERE seq IN (8, 10)")
    assert {reason for (reason,) in reasons} == {None, "the model reads other features now"}


def test_new_and_upgraded_tables_have_the_columns_of_the_program(
    empty: Callable[[], str], old: Callable[[], str]
) -> None:
    new, upgraded = empty(), old()
    for url in (new, upgraded):
        upgrade(url)
        for table in TABLES:
            names = ", ".join(f"`{name}`" for name in columns(table))
            rows(url, f"SELECT {names} FROM {table}")
            # An INSERT without column names relies on this order.
            if is_sqlite(url):
                found = [row[1] for row in rows(url, f"PRAGMA table_info({table})")]
            else:
                found = [row[0] for row in rows(url, f"SHOW COLUMNS FROM {table}")]
            assert found == list(columns(table))


def test_two_programs_can_start_at_the_same_time(
    old: Callable[[], str], empty: Callable[[], str]
) -> None:
    for url in (old(), empty()):
        programs = [migrate(url) for _ in range(2)]
        for status, errors in [ended(program) for program in programs]:
            assert status == 0, errors
        assert rows(url, "SELECT version_num FROM alembic_version") == [(VERSIONS[-1],)]


def migrate(url: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "tool", "migrate"],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(program: "subprocess.Popen[str]") -> tuple[int, str]:
    """Waits for the program; returns its exit status and the text that it has written to stderr."""
    _, errors = program.communicate(timeout=60)
    return program.returncode, errors


def test_a_database_of_a_newer_program_is_an_error(current: Callable[[], str]) -> None:
    url = current()
    rows(url, "UPDATE alembic_version SET version_num = '9999'")
    before = shape(url)
    status, errors = ended(migrate(url))
    assert status == 1
    assert "9999" in errors
    assert errors.count("\n") == 1
    assert shape(url) == before


def test_a_program_writes_nothing_to_newer_tables(current: Callable[[], str]) -> None:
    url = current()
    with closing(connect(url)) as database:
        database.remember_models(model_rows(DECLARATION))
        handler = handler_of(database)
        handler.handle(batch(0, message(), message()))
        alarms = AlarmChanges("s", "m", "1", [(Part(0, 2, 0), 2)])
        writers: list[Callable[[], object]] = [
            lambda: handler.handle(batch(2, message())),
            lambda: database.remember_models([]),
            lambda: database.fill_in([]),
            lambda: AlarmTables(database).commit(alarms),
            lambda: forget(database.session, "stream = ?", "s"),
        ]
        rows(url, "UPDATE alembic_version SET version_num = '9999'")
        for write in writers:
            with pytest.raises(Outdated):
                write()
        # This is the state during an upgrade, or after an upgrade that was interrupted.
        rows(url, "ALTER TABLE alembic_version RENAME TO upgrading_version")
        for write in writers:
            with pytest.raises(Unavailable) as error:
                write()
            assert not isinstance(error.value, Outdated)
    assert rows(url, "SELECT seq FROM readings ORDER BY seq") == [(1,), (2,)]
    assert rows(url, "SELECT seq FROM positions") == [(2,)]
    assert rows(url, "SELECT * FROM alarm_positions") == []


def test_tables_of_another_program_are_an_error(current: Callable[[], str]) -> None:
    url = current()
    rows(url, "DROP TABLE vitals")
    rows(url, "CREATE TABLE vitals (stream VARCHAR(32), n BIGINT)")
    with pytest.raises(PermanentFailure, match="vitals"):
        upgrade(url)


@pytest.mark.parametrize("kind", ["mysql", "mariadb"])
class TestServers:
    LOOSE = "CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci"

    def test_an_upgrade_waits_for_running_transactions(
        self, current: Callable[[], str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        url = current()
        rows(url, f"UPDATE alembic_version SET version_num = '{VERSIONS[-2]}'")
        waiting = (
            "SELECT COUNT(*) FROM information_schema.processlist WHERE state LIKE '%metadata lock'"
        )
        with closing(connect(url)) as database:
            with monkeypatch.context() as older:
                older.setattr("tool.database.session.VERSIONS", VERSIONS[:-1])
                with database.session.writing() as cursor:
                    program = migrate(url)
                    while rows(url, waiting) == [(0,)]:
                        assert program.poll() is None
                    cursor.execute(
                        "INSERT INTO positions (stream, part, seq, vitals_seq, committed_at)"
                        " VALUES ('s', 0, 1, 1, NOW())"
                    )
            status, errors = ended(program)
            assert status == 0, errors
            assert rows(url, "SELECT seq FROM positions") == [(1,)]
            assert rows(url, "SELECT version_num FROM alembic_version") == [(VERSIONS[-1],)]
            with monkeypatch.context() as older:
                older.setattr("tool.database.session.VERSIONS", VERSIONS[:-1])
                with pytest.raises(Outdated):
                    database.remember_models([])

    def test_after_an_upgrade_texts_that_differ_in_case_are_different(
        self, old: Callable[[], str]
    ) -> None:
        url = old()
        rows(url, "DELETE FROM vitals WHERE parameter = 'HR'")
        for table in OLD_TABLES:
            rows(url, f"ALTER TABLE {table} CONVERT TO {self.LOOSE}")
        assert len(rows(url, "SELECT 1 FROM readings WHERE parameter = 'hr'")) == 2
        upgrade(url)
        assert len(rows(url, "SELECT 1 FROM readings WHERE parameter = 'hr'")) == 1
        rows(url, "SELECT 1 FROM outcomes JOIN stays ON outcomes.stream = stays.stream")

    def test_tables_distinguish_names_even_if_the_default_of_the_database_does_not(
        self, empty: Callable[[], str]
    ) -> None:
        url = empty()
        rows(url, f"ALTER DATABASE {self.LOOSE}")
        upgrade(url)
        for name in ("CO", "co", "co ", "Température", "temperature"):
            rows(
                url, f"INSERT INTO models VALUES ('{name}', '1', 'shadow', '[]', NOW(), NULL, NULL)"
            )
        assert rows(url, "SELECT COUNT(*) FROM models") == [(5,)]

    def test_a_column_that_ignores_case_is_an_error(self, current: Callable[[], str]) -> None:
        url = current()
        rows(url, f"ALTER TABLE readings MODIFY parameter VARCHAR(64) {self.LOOSE} NOT NULL")
        with pytest.raises(PermanentFailure, match=r"readings\.parameter"):
            upgrade(url)

    def test_a_user_who_cannot_change_tables_gets_an_error_without_a_traceback(
        self, old: Callable[[], str]
    ) -> None:
        url = old()
        name = url.rpartition("/")[2]
        reader = f"u{name[-20:]}"
        # MariaDB matches its anonymous user at localhost before a user at '%', so the user is
        # created at both.
        for host in ("'%'", "localhost"):
            rows(url, f"CREATE USER {reader}@{host} IDENTIFIED BY 'secret'")
            rows(url, f"GRANT SELECT, INSERT, UPDATE ON {name}.* TO {reader}@{host}")
        theirs = url.replace("root@", f"{reader}:secret@")
        status, errors = ended(migrate(theirs))
        assert status == 1
        assert "python -m tool migrate" in errors.splitlines()[-1]
        assert "Traceback" not in errors
        upgrade(url)
        assert ended(migrate(theirs))[0] == 0


def test_the_newest_step_is_the_version_of_the_program() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [VERSIONS[-1]]
