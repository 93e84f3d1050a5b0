"""From the JSON of POST /api/model to an array of features, and errors that name the field."""

import json
import math
from operator import itemgetter
from typing import Any

import msgspec
import numpy as np

from modelapi.api_errors import BadInput
from modelapi.predictor import Rows
from modelapi.repository import Model

_ONE = msgspec.json.Decoder(dict[str, float | None])
_MANY = msgspec.json.Decoder(list[dict[str, float | None]])


def read_rows(body: bytes, model: Model) -> tuple[Rows, bool]:
    """An object, or a list of objects, of feature values; null for missing.

    Returns the values, shape (rows, features), and whether it was a list.
    Raises BadInput naming the field, and the row (from 0) of a list.
    """
    many = body.lstrip()[:1] == b"["
    try:
        # The straight way first. Whatever is wrong with a body is found out afterwards.
        rows = _MANY.decode(body) if many else [_ONE.decode(body)]
        names = model.names
        if len(names) == 1:
            values: list[Any] = [(row[names[0]],) for row in rows]
        else:
            values = list(map(itemgetter(*names), rows))
        if any(len(row) != len(names) for row in rows):
            raise KeyError
    except (msgspec.MsgspecError, KeyError, UnicodeDecodeError):
        raise _fault(_document(body), model, many) from None
    array = np.array(values, dtype=np.float64).reshape(len(rows), len(names))
    require(array, model, many)
    return array, many


def require(rows: Rows, model: Model, many: bool = True) -> None:
    """Raise BadInput for the first required feature that is missing."""
    absent = np.argwhere(np.isnan(rows) & model.required)
    if len(absent):
        row, column = absent[0].tolist()
        raise BadInput("is required and must be a number", model.names[column], _row(row, many))


def _row(number: int, many: bool) -> int | None:
    return number if many else None


def _document(body: bytes) -> Any:
    # The standard library's parser takes NaN and Infinity, so that their field can be named.
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
