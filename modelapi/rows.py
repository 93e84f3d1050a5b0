"""Converts the JSON of POST /api/model: rows of features to an array, and outputs to rows. Errors
name the field and the row. Their text is made from the decoder's error, without a second parse of
the body.
"""

import functools
import re
from collections.abc import Sequence
from itertools import repeat
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from modelapi.api_errors import BadInput
from modelapi.content import as_utf8, decode
from modelapi.limits import require_size
from modelapi.predictor import Rows
from modelapi.repository import Model

# Maximum number of bytes of the first row that are searched for fields, to choose a model.
_FIRST_ROW_BYTES = 64 * 1024
_NUMBER_WORD = re.compile(rb'"([^"\\]+)"\s*:\s*-?(NaN|Infinity)')
_KINDS = {"object": "an object", "array": "a list", "str": "a text", "bool": "a boolean"}


def _row_type(names: tuple[str, ...], member: Any) -> Any:
    """A msgspec struct with these members, because msgspec decodes and encodes structs in C."""
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
    """Reads an object of feature values, or a list of such objects; null is a missing value.
    Returns the values, shape (rows, features), and whether the body is a list. Raises TooLarge, and
    BadInput, which names the field and, in a list, the row (counted from 0), if they are known.
    """
    text = as_utf8(body)
    many = text.lstrip()[:1] == b"["
    decoder = _decoders(model.names)[many]
    try:
        found = decode(text, decoder)
    except msgspec.ValidationError as error:
        raise _misfit(str(error), model) from None
    except BadInput as error:
        raise _not_finite(text, str(error), many) or error from None
    rows = found if many else [found]
    require_size(len(rows), len(model.names))
    values = list(map(msgspec.structs.astuple, rows))
    array = np.array(values, dtype=np.float64).reshape(len(rows), len(model.names))
    require(array, model, many)
    return array, many


def best_match(body: bytes, models: Sequence[Model]) -> Model:
    """The model that reads most of the first row's fields; of several such models, the first."""
    text = as_utf8(body)
    start = max(text.find(b"{"), 0)
    row = text[start : start + _FIRST_ROW_BYTES].partition(b"}")[0]
    fields = {name.decode(errors="replace") for name in re.findall(rb'"([^"\\]*)"\s*:', row)}
    return max(models, key=lambda model: len(fields.intersection(model.names)))


def write_rows(outputs: dict[str, NDArray[Any]], model: Model, many: bool) -> bytes:
    """Encodes the outputs as one object per row, which also names the model."""
    prediction = _prediction_type(tuple(outputs))
    columns = [values.tolist() for values in outputs.values()]
    rows = list(map(prediction, *columns, repeat(model.ref.model), repeat(model.ref.version)))
    return msgspec.json.encode(rows if many else rows[0])


def require(rows: Rows, model: Model, many: bool = True) -> None:
    """Raises BadInput for the first missing value of a required feature. many: whether the message
    names the row."""
    missing = np.isnan(rows)
    if missing.any() and (absent := missing & model.required).any():
        row, column = np.argwhere(absent)[0].tolist()
        raise BadInput(
            "is required and must be a number", model.names[column], row if many else None
        )


def _misfit(error: str, model: Model) -> BadInput:
    """Rephrases msgspec's error, such as "Expected `float | null`, got `str` - at `$[5].age`"."""
    reason, _, path = error.partition(" - at `$")
    place = re.match(r"(?:\[(\d+)\])?\.?(.*)`", path, re.DOTALL)
    row = int(place[1]) if place and place[1] else None
    field = place[2] if place else ""
    if reason.startswith("Object missing"):
        return BadInput(f"is missing; {model.ref} needs it", _quoted(reason), row)
    if reason.startswith("Object contains"):
        name = _quoted(reason)
        hint = "; name a model in the URL: ?model=NAME" if name in ("model", "version") else ""
        return BadInput(f"is not a feature of {model.ref}{hint}", name, row)
    if reason.startswith("Number out of range"):
        return BadInput("must be a finite number or null", field, row)
    kind = _KINDS.get(reason.rpartition("got `")[2].rstrip("`"), "a number")
    if field:
        return BadInput(f"must be a number or null, not {kind}", field, row)
    if row is not None:
        return BadInput(f"must be an object of features, not {kind}", row=row)
    return BadInput("The body must be an object, or a list of objects, of features.")


def _quoted(reason: str) -> str:
    return reason[reason.find("`") + 1 : reason.rfind("`")]


def _not_finite(text: bytes, reason: str, many: bool) -> BadInput | None:
    """The error for a field that contains NaN or Infinity, which are not JSON but which some
    clients send; None if there is no such field at the place that `reason` names."""
    at = re.search(r"byte (\d+)\)", reason)
    word = at and _NUMBER_WORD.search(text, max(0, int(at[1]) - 512), int(at[1]) + 9)
    if not at or not word:
        return None
    row = text.count(b"{", 0, int(at[1])) - 1 if many else None
    return BadInput("must be a finite number or null", word[1].decode(errors="replace"), row)
