"""Runs the notebook in docs/, from tables to a promoted model."""

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from embedded.programs import ROOT
from tests.support.pipeline import synthetic
from tool.database import connect
from wire.tables import PositionRow, ReadingRow, StayRow

NOTEBOOK = ROOT / "docs" / "train-and-compare.ipynb"
EXECUTE = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
try:
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": "."}}).execute()
finally:
    nbformat.write(notebook, sys.argv[2])
"""

pytestmark = pytest.mark.timeout(200)


def store(ward: Path, url: str) -> int:
    """Fills the tables with the readings of the ward; returns the number of readings."""
    days = {"date_admission": "%d/%m/%Y", "day": "%Y-%m-%d"}
    tables = {
        name: pd.read_csv(ward / f"{name}.csv", sep=";", index_col=0)
        for name in ("age", "admission", "signal")
    }
    stays, signal = tables["admission"].merge(tables["age"], on="pat_id"), tables["signal"]
    for table, column in ((stays, "date_admission"), (signal, "day")):
        table[column] = pd.to_datetime(table[column], format=days[column])
    signal["at"] = signal["day"] + pd.to_timedelta(signal["hour"], unit="h")
    stays = stays.sort_values("date_admission")
    readings = pd.merge_asof(
        signal.sort_values("at", kind="stable"),
        stays,
        by="pat_id",
        left_on="at",
        right_on="date_admission",
    )
    with closing(connect(url)) as database:
        database.create_tables()
        with database.session.transaction() as cursor:
            database.session.insert(
                cursor,
                "readings",
                [
                    ReadingRow(
                        *("s", seq, row.pat_id, str(row.date_admission)[:10]),
                        *(str(row.at), row.parameter, row.value),
                    )
                    for seq, row in enumerate(readings.itertuples(), 1)
                ],
            )
            database.session.insert(
                cursor,
                "stays",
                [
                    StayRow("s", row.pat_id, str(row.date_admission)[:10], row.age, *(None,) * 3)
                    for row in stays.itertuples()
                ],
            )
            last = len(readings)
            row = PositionRow("s", 0, last, last, "2150-01-01 00:00:00.000")
            database.session.insert(cursor, "positions", [row])
    return last


def texts(notebook: Any) -> str:
    return "".join(
        "".join(output.get("text", []))
        for cell in notebook["cells"]
        for output in cell.get("outputs", [])
    )


def test_the_notebook_trains_compares_and_promotes_a_model(tmp_path: Path) -> None:
    ward, work, done = tmp_path / "ward", tmp_path / "work", tmp_path / "done.ipynb"
    ward.mkdir()
    synthetic(ward, "--patients", "150", "--days", "14", "--seed", "1")
    readings = store(ward, f"sqlite:///{tmp_path}/icu.sqlite")
    environ = os.environ | {
        "WARD": str(ward),
        "TABLES": f"sqlite:///{tmp_path}/icu.sqlite",
        "WORK": str(work),
        "IPYTHONDIR": str(tmp_path / "ipython"),
    }
    subprocess.run(
        [sys.executable, "-c", EXECUTE, NOTEBOOK, done], cwd=ROOT, env=environ, check=True
    )
    said = texts(json.loads(done.read_text()))
    assert f"{readings:,} readings" in said
    assert "champion ward-mortality/1, shadows icu-mortality/2" in said
    listed = subprocess.check_output(
        [sys.executable, "-m", "modelapi", "list"],
        cwd=ROOT,
        env=os.environ | {"MODELS": f"{work}/models", "MODEL_STATE": f"{work}/models.sqlite"},
        text=True,
    )
    roles = {line.split()[0]: line.split()[2] for line in listed.splitlines()}
    assert roles["ward-mortality"] == "champion"
