"""Importers: convert published ICU data sets to the pipeline's CSVs.

An importer is a module with the name of its format and one function,

    records(source: Path, report: Report) -> Iterator[Stay | Reading]

The function reads the source as a stream, yields stays and readings in any order, and counts in
`report` everything that it converts or drops.
"""

from training.importers.records import ImportFailure, Reading, Report, Stay
from training.importers.writer import FORMATS, convert

__all__ = ["FORMATS", "ImportFailure", "Reading", "Report", "Stay", "convert"]
