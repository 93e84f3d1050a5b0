"""Tests that `python -m tool forget` deletes all rows of the given stays and no other row, and that
`python -m tool capacity` measures the tables.
"""

import os
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from rq import Worker
from rq.serializers import JSONSerializer

from embedded.programs import ROOT
from tests.support.seeded_ward import create_tables
from tests.support.servers import copies, redis_server
from tool.database import connect
from wire.database import connect as open_database
from wire.database import placeholder
from wire.tables import KEYS, TABLES, columns

# stream, pat_id, date_admission, date_discharge, number of the first message, count of readings
STAYS = (
    ("a", 1, "2150-01-01", "2150-01-05", 1, 1_100),
    ("a", 1, "2150-02-01", None, 3_001, 3),
    ("a", 2, "2150-01-02", "2150-03-01", 4_001, 3),
    ("b", 1, "2150-01-01", "2150-01-04", 1, 3),
)
UNTOUCHED = {"positions", "models", "alarm_positions", "drift"}
HINTS = {table: typing.get_type_hints(row) for table, row in TABLES.items()}

# The time limit does not include the fixtures (`func_only`), because the server starts slowly.
pytestmark = pytest.mark.timeout(120, func_only=True)


def rows(table: str) -> list[dict[str, Any]]:
    """The rows of a table for every stay: one per reading if the key of the table has a message
    number, otherwise one per stay.
    """
    found = []
    for stream, pat_id, admission, discharge, first, count in STAYS:
        numbered = {"seq", "of_seq"} & set(KEYS[table])
        for seq in range(first, first + (count if numbered else 1)):
            row = {name: value(table, name, seq) for name in columns(table)}
            row |= {"stream": stream} if "stream" in row else {}
            row |= {"pat_id": pat_id} if "pat_id" in row else {}
            row |= {"date_admission": admission} if "date_admission" in row else {}
            row |= {"date_discharge": discharge} if "date_discharge" in row else {}
            if table == "withdrawn":
                # These numbers are not those of stored readings.
                row |= {"of_seq": 10_000 + seq, "seq": 20_000 + seq}
            found.append(row)
    unique = {tuple(row[key] for key in KEYS[table]): row for row in found}
    return list(unique.values())


def value(table: str, name: str, seq: int) -> Any:
    kind = HINTS[table][name]
    if kind == str | None:
        return None
    if name == "part":
        return 0
    if name == "day" or name.startswith("date_"):
        return "2150-01-01"
    if name == "clock" or name.endswith("_at"):
        return "2150-01-01 00:00:00"
    if name == "features":
        return "[]"
    return "x" if kind in (str, str | None) else seq if kind in (int, int | None) else 1.5


def fill(url: str) -> None:
    create_tables(url)
    with closing(open_database(url)) as connection:
        cursor = connection.cursor()
        for table in TABLES:
            names = ", ".join(f"`{name}`" for name in columns(table))
            marks = ", ".join([placeholder(url)] * len(columns(table)))
            cursor.execute("BEGIN")
            cursor.executemany(
                f"INSERT INTO {table} ({names}) VALUES ({marks})",
                [tuple(row.values()) for row in rows(table)],
            )
            connection.commit()


def keys(url: str, table: str) -> set[tuple[str, ...]]:
    with closing(open_database(url, read_only=True)) as connection:
        cursor = connection.cursor()
        cursor.execute(f"SELECT {', '.join(KEYS[table])} FROM {table}")
        return {tuple(map(str, row)) for row in cursor.fetchall()}


def left(table: str, keep: Callable[[dict[str, Any]], bool]) -> set[tuple[str, ...]]:
    return {
        tuple(str(row[key]) for key in KEYS[table])
        for row in rows(table)
        if table in UNTOUCHED or keep(row)
    }


def tool(
    url: str, *arguments: str, redis: str = "redis://127.0.0.1:1/0", **settings: str
) -> "subprocess.CompletedProcess[str]":
    environ = {"PATH": os.environ["PATH"], "DATABASE_URL": url, "REDIS_URL": redis, **settings}
    return subprocess.run(
        [sys.executable, "-m", "tool", *arguments],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def run(url: str, *arguments: str, redis: str = "redis://127.0.0.1:1/0", **settings: str) -> int:
    return tool(url, "forget", *arguments, redis=redis, **settings).returncode


@pytest.fixture(scope="module")
def filled(new_database: Callable[[str], str]) -> Callable[[str], str]:
    """A function that creates a database with rows for all stays in all tables, and returns its
    URL.
    """
    return copies(new_database, fill)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Redis without workers."""
    with redis_server(tmp_path_factory.mktemp("redis")) as client:
        yield address(client)


def address(client: Any) -> str:
    return f"unix://{client.connection_pool.connection_kwargs['path']}"


def stay_of(row: dict[str, Any]) -> tuple[str, int]:
    """The stream, and the number of the stay's first reading."""
    seq = row.get("of_seq", row.get("seq", 0)) % 10_000
    first = max(stay[4] for stay in STAYS if stay[0] == row["stream"] and stay[4] <= max(seq, 1))
    return row["stream"], first


@pytest.mark.parametrize("kind", ["sqlite", "mariadb", "mysql"])
def test_stays_discharged_before_a_day_are_forgotten(
    filled: Callable[[str], str], kind: str, redis: str
) -> None:
    url = filled(kind)
    assert run(url, "--discharged-before", "2150-01-05", redis=redis) == 0
    assert keys(url, "stays") == left("stays", lambda row: row["stream"] == "a")
    assert run(url, "--discharged-before", "2150-01-06", redis=redis) == 0
    for table in set(TABLES) - {"rejected"}:

        def kept(row: dict[str, Any]) -> bool:
            if "date_admission" in row:
                return (row["stream"], row["date_admission"]) not in {
                    ("a", "2150-01-01"),
                    ("b", "2150-01-01"),
                }
            return stay_of(row) not in {("a", 1), ("b", 1)}

        assert keys(url, table) == left(table, kept), table
    # Patient 1 of stream a has another stay, so the patient's rejected messages remain.
    assert keys(url, "rejected") == left("rejected", lambda row: row["stream"] == "a")


@pytest.mark.parametrize("kind", ["sqlite", "mariadb"])
def test_a_stream_is_forgotten_but_its_positions_remain(
    filled: Callable[[str], str], kind: str, redis: str
) -> None:
    url = filled(kind)
    assert run(url, "--stream", "a", redis=redis) == 0
    for table in TABLES:
        assert keys(url, table) == left(table, lambda row: row["stream"] == "b"), table
    assert run(url, "--stream", "none", redis=redis) == 0


@pytest.mark.parametrize("kind", ["sqlite", "mariadb"])
def test_rows_that_no_reading_leads_to_are_forgotten(
    filled: Callable[[str], str], kind: str, redis: str
) -> None:
    url = filled(kind)
    at = "2150-01-05 12:00:00"
    cleared = ("a", 9_001, "x", "x")  # by a discharge
    added = (
        ("alarms", (*cleared, 1, "2150-01-01", "clear", 1, at, None, 1, None)),
        ("outbox", cleared),
        # No row of `stays` has this patient.
        ("outcomes", ("a", 9_002, 9, "2150-01-01", "died", 1.0, at)),
        ("acknowledgements", ("a", 9_003, 9, "2150-01-01", None, "Ada", at, 0.0)),
    )
    with closing(open_database(url)) as connection:
        cursor = connection.cursor()
        cursor.execute("BEGIN")
        for table, row in added:
            marks = ", ".join([placeholder(url)] * len(row))
            cursor.execute(f"INSERT INTO {table} VALUES ({marks})", row)
        connection.commit()
    assert run(url, "--discharged-before", "2150-01-06", redis=redis) == 0
    assert ("a", "9001", "x", "x") not in keys(url, "outbox") | keys(url, "alarms")
    assert run(url, "--stream", "a", redis=redis) == 0
    for table, _ in added:
        assert {stream for stream, *_ in keys(url, table)} == set(), table


@pytest.mark.parametrize("kind", ["sqlite", "mariadb"])
def test_stays_expire_by_the_clock_of_their_own_stream(
    filled: Callable[[str], str], kind: str, redis: str
) -> None:
    url = filled(kind)
    rejected = ("1950-01-01 00:00:00", "2190-01-01 00:00:00")
    with closing(open_database(url)) as connection:
        cursor = connection.cursor()
        for seq, (day, at) in enumerate(zip(("2150-01-05", "2150-01-06"), rejected, strict=True)):
            outcome = f"('a', {seq + 9_000}, 9, '2150-01-01', 'died', 1, '{day} 23:00:00')"
            cursor.execute(f"INSERT INTO outcomes VALUES {outcome}")
            for stream, patient in (("a", "NULL"), ("a", "2"), ("none", "9")):
                row = f"('{stream}', {seq + 9_000}{len(patient)}, {patient}, '', '', '{at}')"
                cursor.execute(f"INSERT INTO rejected VALUES {row}")
        # Stream b has ended; the last reading of stream a is 100 days after a discharge.
        for stream, last in (("a", "2150-04-15 06:00:00"), ("b", "2150-01-04 06:00:00")):
            connection.cursor().execute(
                f"UPDATE vitals SET last_at = '{last}' WHERE stream = '{stream}'"
            )
        connection.commit()
    assert run(url, "--expired", redis=redis) == 1
    assert run(url, "--expired", redis=redis, RETENTION_DAYS="100") == 0
    assert keys(url, "stays") == left("stays", lambda _: True)
    assert run(url, "--expired", redis=redis, RETENTION_DAYS="99") == 0
    kept = {stay[:3] for stay in STAYS} - {("a", 1, "2150-01-01")}
    assert {(stream, int(pat_id), day) for pat_id, day, stream in keys(url, "stays")} == kept
    assert keys(url, "readings") == left("readings", lambda row: stay_of(row) != ("a", 1))
    added = {key for key in keys(url, "outcomes") if int(key[1]) >= 9_000}
    assert added == {("a", "9001")}
    # Those of patient 2, who has a stay, remain, and those that are rejected later.
    added = {key for key in keys(url, "rejected") if int(key[1]) >= 90_000}
    assert added == {("a", "90001"), ("a", "90011"), ("a", "90014"), ("none", "90011")}


@pytest.mark.parametrize("kind", ["sqlite", "mysql", "mariadb"])
def test_capacity_measures_rows_and_bytes_of_each_table(
    filled: Callable[[str], str], kind: str
) -> None:
    url = filled(kind)
    said = tool(url, "capacity")
    assert said.returncode == 0, said.stderr
    lines = said.stdout.replace(",", "").splitlines()[1:]
    measured = {
        name: (int(count), int(size), float(each))
        for name, count, size, each in map(str.split, lines)
    }
    assert {name: count for name, (count, _, _) in measured.items()} == {
        **{table: len(keys(url, table)) for table in TABLES},
        "all": sum(len(keys(url, table)) for table in TABLES),
    }
    whole = measured.pop("all")
    assert whole[1] == sum(size for _, size, _ in measured.values())
    assert whole[2] == pytest.approx(whole[1] / measured["readings"][0], abs=0.06)
    if kind == "sqlite":
        assert 0.8 < whole[1] / Path(url.removeprefix("sqlite:///")).stat().st_size < 1


def test_forgetting_frees_space_on_the_disk(filled: Callable[[str], str]) -> None:
    url = filled("sqlite")
    file = Path(url.removeprefix("sqlite:///"))
    before = file.stat().st_size
    assert run(url, "--stream", "a") == 0
    assert file.stat().st_size < before / 2


@pytest.mark.parametrize("kind", ["sqlite", "mariadb"])
def test_nothing_is_forgotten_while_a_tool_runs(
    filled: Callable[[str], str], kind: str, tmp_path: Path
) -> None:
    url = filled(kind)
    with redis_server(tmp_path) as client:
        worker = Worker([], connection=client, serializer=JSONSerializer)
        worker.register_birth()
        assert run(url, "--stream", "a", redis=address(client)) == 1
        assert keys(url, "stays") == left("stays", lambda _: True)
        client.delete(worker.key)  # after `kill -9`, it expires
        assert run(url, "--stream", "a", redis=address(client)) == 0


def test_nothing_is_forgotten_in_a_file_that_is_in_use(filled: Callable[[str], str]) -> None:
    url = filled("sqlite")
    database = connect(url)
    database.positions()
    assert run(url, "--stream", "a") == 1
    assert keys(url, "stays") == left("stays", lambda _: True)
    database.close()
    assert run(url, "--stream", "a") == 0


def test_nothing_is_forgotten_in_mariadb_if_redis_does_not_answer(
    filled: Callable[[str], str],
) -> None:
    url = filled("mariadb")
    assert run(url, "--stream", "a") == 1
    assert keys(url, "stays") == left("stays", lambda _: True)


@pytest.mark.parametrize("arguments", [[], ["--discharged-before", "1.2.2150"]])
def test_wrong_arguments_are_rejected(arguments: list[str]) -> None:
    assert run("sqlite:////nowhere", *arguments) == 2
