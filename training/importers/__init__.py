"""Importers: published ICU data sets, turned into the pipeline's CSVs.

An importer is a module named for its format with one function,

    records(source: Path, report: Report) -> Iterator[Stay | Reading]

that yields stays and readings in any order, reading the source as a stream,
and counts in `report` everything it converts or drops.
"""

from training.importers.records import ImportFailure, Reading, Report, Stay
from training.importers.writer import FORMATS, convert

__all__ = ["FORMATS", "ImportFailure", "Reading", "Report", "Stay", "convert"]
