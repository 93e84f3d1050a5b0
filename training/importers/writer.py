"""Writes an importer's records as the CSVs that the pipeline and training read."""

import csv
import importlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import Any

from training.importers.records import ImportFailure, Reading, Report, Stay

FORMATS = ("physionet2012", "physionet2019", "mimic", "eicu")


def convert(format_name: str, source: Path, target: Path) -> Report:
    """Writes age.csv, admission.csv, signal.csv, outcome.csv and import.json to `target`.

    Returns the report, which is also in import.json. Raises ImportFailure for an unknown format,
    and for a source that is damaged or in another format.
    """
    if format_name not in FORMATS:
        raise ImportFailure(f"FORMAT={format_name}: not one of {', '.join(FORMATS)}")
    importer = importlib.import_module(f"training.importers.{format_name}")
    report = Report()
    target.mkdir(parents=True, exist_ok=True)
    # The files are written elsewhere first, so that a failed import does not change those of an
    # earlier import.
    with tempfile.TemporaryDirectory(dir=target, prefix=".import-") as unfinished:
        folder = Path(unfinished)
        _write(importer.records(source, report), folder, report)
        if not report.stays:
            raise ImportFailure(f"{source}: no stay in the format {format_name} found")
        account = json.dumps({"format": format_name, **report.as_dict()}, indent=2)
        (folder / "import.json").write_text(account + "\n", encoding="utf-8")
        for path in folder.iterdir():
            path.replace(target / path.name)
    return report


def _write(records: Iterable[Stay | Reading], target: Path, report: Report) -> None:
    with ExitStack() as files:

        def table(name: str, *header: str) -> Any:
            file = (target / name).open("w", encoding="utf-8", newline="")
            writer = csv.writer(files.enter_context(file), delimiter=";", lineterminator="\n")
            writer.writerow(header) if header else None
            return writer

        ages = table("age.csv", "pat_id", "date_admission", "age")
        admissions = table("admission.csv", "pat_id", "date_admission", "date_discharge")
        signals = table("signal.csv", "pat_id", "day", "hour", "parameter", "value")
        outcomes = table("outcome.csv")
        aged: dict[int, dict[date, float]] = {}
        stays: set[tuple[int, date]] = set()
        for record in records:
            if isinstance(record, Reading):
                pat_id, day, minute, parameter, value = record
                report.readings[parameter] += 1
                # hospital drops repeated rows. The minute distinguishes equal values of one hour.
                signals.writerow(
                    [pat_id, day, f"{minute // 60:02}:{minute % 60:02}", parameter, value]
                )
                continue
            pat_id, admission, discharge, age, outcome = record
            if not stays:
                outcomes.writerow(["pat_id", "date_admission", *outcome])
            if (pat_id, admission) in stays:
                raise ImportFailure(f"pat_id {pat_id}: two stays that begin on {admission}")
            stays.add((pat_id, admission))
            if age is not None:
                aged.setdefault(pat_id, {})[admission] = age
            admissions.writerow([pat_id, admission, discharge])
            outcomes.writerow([pat_id, admission, *outcome.values()])
        report.stays = len(stays)
        for pat_id, of_stays in aged.items():
            ages.writerows([pat_id, day, age] for day, age in _changes(of_stays))


def _changes(ages: Mapping[date, float]) -> Iterator[tuple[date, float]]:
    """Yields the age in the first stay, and in each later stay in which the age differs from that
    of the stay before."""
    before = None
    for day, age in sorted(ages.items()):
        if age != before:
            yield day, age
        before = age
