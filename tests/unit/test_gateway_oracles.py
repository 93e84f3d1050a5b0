"""Compares the gateway's parsing with hl7apy, and its conversions with ucumvert."""

import csv
from pathlib import Path

import pytest
from hl7apy.core import Segment
from hl7apy.exceptions import HL7apyException
from hl7apy.parser import parse_message
from ucumvert import PintUcumRegistry

import gateway.codes
from gateway.codes import Codes, Conversion
from gateway.hl7 import at, parse, split
from tests.support.hl7_corpus import corpus
from wire.vitals import VITALS

CSV = Path(gateway.codes.__file__).with_name("codes.csv")
CODES = list(csv.DictReader(CSV.read_text().splitlines()))
CONVERSION = ("parameter", "unit", "factor", "offset")
UCUM = {"mmHg": "mm[Hg]", "°C": "Cel", "10⁹/L": "10*9/L", "fraction": "1"}
# These are not compared: values without a unit, scores, and units that are equal by the definition
# of the parameter.
BY_DEFINITION = {"", "{score}", "[pH]", "[IU]/L", "meq/L"}
ATOMS = {"H": 1.008, "C": 12.011, "N": 14.007, "O": 15.999, "P": 30.974, "Mg": 24.305, "Ca": 40.078}
MOLECULES = {
    "bilirubin": {"C": 33, "H": 36, "N": 4, "O": 6},
    "bilirubin_direct": {"C": 33, "H": 36, "N": 4, "O": 6},
    "bun": {"N": 2},  # urea's nitrogen
    "calcium": {"Ca": 1},
    "cholesterol": {"C": 27, "H": 46, "O": 1},
    "creatinine": {"C": 4, "H": 7, "N": 3, "O": 1},
    "glucose": {"C": 6, "H": 12, "O": 6},
    "lactate": {"C": 3, "H": 6, "O": 3},
    "magnesium": {"Mg": 1},
    "phosphate": {"P": 1},
}


def test_fields_equal_those_of_hl7apy() -> None:
    """Compares every field of every segment in all messages of the corpus that hl7apy can parse."""
    compared = 0
    for content in (message for frame in corpus() for message in split(frame)):
        message = parse(content)
        sent = "\r".join(message.delimiters.field.join(s) for s in _as_sent(message.segments))
        try:
            oracle = parse_message(sent, find_groups=False)
            theirs = [child for child in oracle.children if isinstance(child, Segment)]
        except (HL7apyException, ValueError):
            continue
        assert [segment[0] for segment in message.segments] == [s.name for s in theirs]
        for ours, their in zip(message.segments, theirs, strict=True):
            if ours[0] == "MSH":
                assert ours[9:13] == [getattr(their, f"msh_{n}").to_er7() for n in range(9, 13)]
                continue
            for number, text in _fields(their, message.delimiters.repetition).items():
                if "\\X" not in at(ours, number):  # hl7apy escapes these characters again
                    assert at(ours, number) == text
                    compared += 1
    assert compared > 400


def _as_sent(segments: list[list[str]]) -> list[list[str]]:
    msh, *others = segments
    return [[msh[0], *msh[2:]], *others]


def _fields(segment: Segment, repetition: str) -> dict[int, str]:
    """The text of each field, with all its repetitions, by the number of the field."""
    found: dict[int, list[str]] = {}
    for field in segment.children:
        found.setdefault(int(field.name.rpartition("_")[2]), []).append(field.to_er7())
    return {number: repetition.join(texts) for number, texts in found.items()}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_conversions_equal_those_of_ucumvert() -> None:
    registry = PintUcumRegistry()
    compared = 0
    conversions = {tuple(row[name] for name in CONVERSION): row for row in CODES}
    for row in conversions.values():
        unit, parameter = row["unit"], VITALS[row["parameter"]]
        to = UCUM.get(parameter.unit, parameter.unit)
        if unit in BY_DEFINITION or not to or (row["parameter"] == "hemoglobin" and "mol" in unit):
            continue
        conversion = Conversion(row["parameter"], float(row["factor"]), float(row["offset"]))
        source, target = (_without_notes(registry, text) for text in (unit, to))
        for value in (1.0, 37.5):
            quantity = registry.Quantity(value, source)
            if not quantity.is_compatible_with(target):
                quantity = _by_molecule(registry, quantity, row["parameter"])
            expected = quantity.to(target).magnitude
            assert conversion.of(value) == pytest.approx(expected, rel=1e-4, abs=1e-9), row
            if row["parameter"] not in MOLECULES:
                assert conversion.of(value) == pytest.approx(expected, rel=1e-9, abs=1e-9), row
            compared += 1
    assert compared > 100


def _without_notes(registry: PintUcumRegistry, unit: str) -> object:
    """The unit without its annotations in braces, such as `{Beats}/min`."""
    head, _, tail = unit.partition("{")
    unit = head + tail.partition("}")[2] if tail else unit
    return registry.from_ucum(unit or "1").units


def _by_molecule(registry: PintUcumRegistry, quantity: object, parameter: str) -> object:
    """Converts an amount of substance to a mass, or the reverse."""
    mass = sum(ATOMS[atom] * count for atom, count in MOLECULES[parameter].items())
    per_mole = registry.Quantity(mass, "g/mol")
    if quantity.is_compatible_with("mol/L"):  # type: ignore[attr-defined]
        return quantity * per_mole  # type: ignore[operator]
    return quantity / per_mole  # type: ignore[operator]


def test_the_units_of_codes_csv_are_in_ucum_spelling() -> None:
    codes = Codes()
    for row in CODES:
        assert codes.unit(row["unit"]) == row["unit"]
