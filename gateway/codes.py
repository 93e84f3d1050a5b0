"""Maps the senders' codes and units to the pipeline's parameters and units.

`codes.csv` has one row for each unit of each code. Value × factor + offset is the value in the
parameter's unit (wire/vitals.toml). The row with an empty unit applies to values without a unit.
`units.csv` maps other spellings of units to UCUM. The file `CODES`, in the format of `codes.csv`,
adds rows to it and takes precedence.
"""

import csv
import re
from collections import defaultdict
from collections.abc import Sequence
from math import isfinite
from pathlib import Path

import msgspec

from wire.vitals import VITALS, canonical

HERE = Path(__file__).parent
COLUMNS = ("system", "code", "parameter", "unit", "factor", "offset")
LOINC, MDC = "LN", "MDC"
SYSTEMS = {
    "http://loinc.org": LOINC,
    "urn:oid:2.16.840.1.113883.6.1": LOINC,
    "LOINC": LOINC,
    "urn:iso:std:iso:11073:10101": MDC,
    "urn:oid:2.16.840.1.113883.6.24": MDC,
}
# An annotation does not change a UCUM unit.
_NOTE = re.compile(r"\{[^{}]*\}")


# Specimens (HL7 table 0070) whose laboratory values are not those of the blood.
OTHER_SPECIMENS = frozenset(
    (
        *("AMN", "BIFL", "BRO", "CSF", "DIAF", "DUFL", "FLU", "GAST", "LAVG", "MILK", "PER"),
        *("PLR", "PRT", "SAL", "SEM", "SPT", "STL", "SWT", "SYN", "VITF"),
        *("UR", "URC", "URNS", "URT", "URINE"),
    )
)


class UnknownUnit(Exception):
    """The code is known, but the unit of the value cannot be converted."""


class OtherSpecimen(Exception):
    """The code is only a name, and the specimen is not blood."""


class Conversion(msgspec.Struct, frozen=True, eq=False):
    """Converts a value to `parameter`: value × factor + offset."""

    parameter: str
    factor: float
    offset: float

    def of(self, value: float) -> float:
        if self.factor == 1 and self.offset == 0:
            return value
        # Rounded to 12 digits, so that 98.6 °F is 37 °C and not 36.99999999999999.
        return float(f"{value * self.factor + self.offset:.12g}")


class CodesError(ValueError):
    """A file of codes or units is invalid. The text names the file, and the line if it is known."""


class Codes:
    """The tables of codes and units.

    >>> codes = Codes()
    >>> codes.conversion([("LN", "8310-5")], "[degF]").of(98.6)
    37.0
    >>> codes.conversion([("L", "XYZ")], "") is None
    True
    """

    def __init__(self, own: Path | None = None) -> None:
        self._units = {row["spelling"]: row["unit"] for row in _rows(HERE / "units.csv")}
        self._codes: defaultdict[tuple[str, str], dict[str, Conversion]] = defaultdict(dict)
        self._parameters: defaultdict[str, dict[str, Conversion]] = defaultdict(dict)
        for path in [HERE / "codes.csv"] + ([own] if own else []):
            self._read(path)

    def _read(self, path: Path) -> None:
        for number, row in enumerate(_rows(path), 2):
            try:
                row = {name: (row[name] or "").strip() for name in COLUMNS}
                parameter, system = canonical(row["parameter"]), row["system"]
                found = Conversion(parameter, float(row["factor"]), float(row["offset"]))
                if not (parameter and row["code"] and found.factor and isfinite(found.of(1))):
                    raise ValueError("a parameter, a code or a number is missing or impossible")
                key = SYSTEMS.get(system, system), row["code"]
                self._codes[key][row["unit"]] = found
                self._parameters[parameter].setdefault(row["unit"], found)
            except (KeyError, ValueError) as error:
                raise CodesError(f"{path}, line {number}: {error}") from None

    def unit(self, spelling: str) -> str:
        """The UCUM spelling of a unit.

        >>> Codes().unit("MDC_DIM_FAHR"), Codes().unit("mmHg"), Codes().unit("{beat}/min")
        ('[degF]', 'mm[Hg]', '/min')
        """
        plain = _NOTE.sub("", spelling) or spelling
        return self._units.get(plain) or self._units.get(plain.lower(), plain)

    def conversion(
        self, codings: Sequence[tuple[str, str]], unit: str, specimen: str = ""
    ) -> Conversion | None:
        """The conversion for the first known (system, code); None if they are all unknown.

        The name or a synonym of a parameter is a known code too, unless there is also a standard
        code: an unknown standard code may be that of another specimen, such as sodium in urine.
        specimen: a code of HL7 table 0070, if it is known. Raises UnknownUnit; OtherSpecimen for a
        name if the specimen is not blood.
        """
        known = [self._codes[coding] for coding in codings if coding in self._codes]
        if not known:
            names = [canonical(code) for _, code in codings]
            pairs = zip(codings, names, strict=True)
            if all(name in VITALS or system not in (LOINC, MDC) for (system, _), name in pairs):
                names = [name for name in names if name in VITALS]
                if names and names[0] != "urine" and specimen.upper() in OTHER_SPECIMENS:
                    raise OtherSpecimen
                known = [self._parameters[name] for name in names]
        if not known:
            return None
        found = known[0].get(unit) or known[0].get(self.unit(unit))
        if found is None:
            raise UnknownUnit(unit)
        return found


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CodesError(f"{path}: {error}") from None
