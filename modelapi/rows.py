"""Parses and formats the JSON of POST /api/model: rows of features to an array, with errors that
name the field, and outputs to rows.
"""

import functools
import json
import math
from collections.abc import Sequence
from itertools import repeat
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from modelapi.api_errors import BadInput
from modelapi.predictor import Rows
from modelapi.repository import Model


def _row_type(names: tuple[str, ...], member: Any) -> Any:
    """A struct with these members, which msgspec decodes and encodes fast."""
    fields = {f"member_{i}": name for i, name in enumerate(names)}
    return msgspec.defstruct(
        "Row",
        [(field, member) for field in fields],
        rename=fields,
        forbid_unknown_fields=True,
        gc=False,
    )


@functools.lru_cache(maxsize=64)
def _decoders(
    features: tuple[str, ...],
) -> tuple[msgspec.json.Decoder[Any], msgspec.json.Decoder[list[Any]]]:
    """Decoders of one row and of a list of rows."""
    row = _row_type(features, float | None)
    return msgspec.json.Decoder(row), msgspec.json.Decoder(list[row])  # type: ignore[valid-type]


@functools.lru_cache(maxsize=64)
def _prediction_type(outputs: tuple[str, ...]) -> Any:
    return _row_type((*outputs, "model", "version"), Any)


def read_rows(body: bytes, model: Model) -> tuple[Rows, bool]:
    """Parses an object, or a list of objects, of feature values; null for missing.

    Returns the values, shape (rows, features), and whether it was a list.
    Raises BadInput naming the field, and the row (from 0) of a list.
    """
    many = body.lstrip()[:1] == b"["
    try:
        # The fast path first. If it fails, the slow path finds the reason.
        one, list_of = _decoders(model.names)
        rows = list_of.decode(body) if many else [one.decode(body)]
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise _fault(_document(body), model, many) from None
    values = list(map(msgspec.structs.astuple, rows))
    array = np.array(values, dtype=np.float64).reshape(len(rows), len(model.names))
    require(array, model, many)
    return array, many


def best_match(body: bytes, models: Sequence[Model]) -> Model:
    """The model that has most of the first row's fields, the first one on a tie.

    Raises BadInput.
    """
    document = _document(body)
    row = document[0] if isinstance(document, list) and document else document
    fields = set(row) if isinstance(row, dict) else set()
    return max(models, key=lambda model: len(fields.intersection(model.names)))


def write_rows(outputs: dict[str, NDArray[Any]], model: Model, many: bool) -> bytes:
    """The outputs as one object per row, which also names the model."""
    prediction = _prediction_type(tuple(outputs))
    columns = [values.tolist() for values in outputs.values()]
    rows = list(map(prediction, *columns, repeat(model.ref.model), repeat(model.ref.version)))
    return msgspec.json.encode(rows if many else rows[0])


def require(rows: Rows, model: Model, many: bool = True) -> None:
    """Raises BadInput for the first missing required feature."""
    absent = np.isnan(rows) & model.required
    if absent.any():
        row, column = np.argwhere(absent)[0].tolist()
        raise BadInput("is required and must be a number", model.names[column], _row(row, many))


def _row(number: int, many: bool) -> int | None:
    return number if many else None


def _document(body: bytes) -> Any:
    # The standard library's parser accepts NaN and Infinity, so that the error can name their
    # field.
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise BadInput(f"The body is not JSON: {reason}") from None


def _fault(document: Any, model: Model, many: bool) -> BadInput:
    for number, row in enumerate(document if isinstance(document, list) else [document]):
        where = _row(number, many)
        if not isinstance(row, dict):
            return BadInput(f"must be an object of features, not {_kind(row)}", row=where)
        for name in model.names:
            if name not in row:
                return BadInput(f"is missing; {model.ref} needs it", name, where)
            value = row[name]
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                return BadInput(f"must be a number or null, not {_kind(value)}", name, where)
            if not _finite(value):
                return BadInput("must be a finite number or null", name, where)
        for name in row:
            if name not in model.names:
                return BadInput(f"is not a feature of {model.ref}", name, where)
    return BadInput("The body must be an object, or a list of objects, of features.")


def _finite(value: int | float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "a boolean"}
    return kinds.get(type(value), "null" if value is None else "a number")
