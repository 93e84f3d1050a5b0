"""The patients' numbers, and the identifiers that the files have for them."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from hospital.cell_errors import RejectedCell
from hospital.cells import identifier, is_number, missing, name, patient

HEADER = ["pat_id", "identifier"]


class Names:
    """Assigns a number to each text, in order of first appearance; a missing value has number 0."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {"": 0}

    def parse(self, text: str) -> int:
        return self._number("" if missing(text) else name(text))

    def parse_identifier(self, text: str) -> int:
        return self._number(identifier(text))

    def _number(self, found: str) -> int:
        return self.numbers.setdefault(found, len(self.numbers))


class Patients:
    """The admitted patients, in the order of their first rows in admission.csv.

    If all identifiers are plain numbers, they are the patients' numbers. Otherwise the patients are
    numbered from 1 in this order, so that rows added at the end do not change the numbers.
    """

    def __init__(self, identifiers: Iterable[str]) -> None:
        order = list(dict.fromkeys(identifiers))
        self.are_numbered = not all(map(is_number, order))
        self.numbers = {
            text: place if self.are_numbered else int(text) for place, text in enumerate(order, 1)
        }
        # Excel drops leading zeros, so 17 means patient 0017, unless there is also a patient 17.
        self._by_value: dict[int, set[int]] = {}
        for text, number in self.numbers.items():
            if text.isascii() and text.isdigit():
                self._by_value.setdefault(int(text), set()).add(number)

    def parse(self, text: str) -> int:
        """Returns the number of the patient in a cell. Raises RejectedCell for an invalid
        identifier or a patient without an admission.
        """
        if self.are_numbered:
            known = self._find(identifier(text))
        else:
            number = patient(text)
            known = number if number in self._by_value else None
        if known is None:
            raise RejectedCell("no admission of this patient")
        return known

    def _find(self, found: str) -> int | None:
        if found in self.numbers or not (found.isascii() and found.isdigit()):
            return self.numbers.get(found)
        alike = self._by_value.get(int(found), set())
        return next(iter(alike)) if len(alike) == 1 else None

    def write(self, output: BinaryIO) -> None:
        """Writes patients.csv: the number and the identifier of each patient."""
        file = io.TextIOWrapper(output, encoding="utf-8", newline="", write_through=True)
        writer = csv.writer(file, delimiter=";", lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows((number, text) for text, number in self.numbers.items())
        file.detach()

    @classmethod
    def read(cls, path: Path) -> "Patients":
        """Reads the patients from a patients.csv. Raises OSError or ValueError."""
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file, delimiter=";")
        if header != HEADER:
            raise ValueError(f"{path} is not hospital's list of patients")
        return cls(row[1] for row in rows)
