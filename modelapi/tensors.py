"""Reads and writes tensors of the Open Inference Protocol, as JSON and in the binary extension.

An inference request has one tensor per feature, of shape [rows] or [rows, 1], or one tensor
`features` of shape [rows, features] with columns in the manifest's order.
"""

import json
import re
import struct
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from modelapi.api_errors import BadInput
from modelapi.predictor import Rows

NUMBERS = {
    "FP64": "<f8", "FP32": "<f4", "FP16": "<f2",
    "INT8": "<i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
}  # fmt: skip


MATRIX = "features"


class Tensor(msgspec.Struct):
    """An input; its values are in `data`, or in the binary part of the body."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] | None = None
    data: Any = msgspec.UNSET


class Requested(msgspec.Struct):
    """A requested output."""

    name: str
    parameters: dict[str, Any] | None = None


class InferenceRequest(msgspec.Struct):
    """An inference request without its binary part."""

    inputs: list[Tensor]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[Requested] | None = None


_decoder = msgspec.json.Decoder(InferenceRequest)


def read_request(body: bytes, json_length: str | None) -> tuple[InferenceRequest, memoryview]:
    """Splits a body into request and binary part. json_length: the header with the length of the
    JSON part.
    """
    length = len(body)
    if json_length is not None:
        if not re.fullmatch(r"[0-9]{1,10}", json_length) or int(json_length) > length:
            raise BadInput(
                f"must be a number of bytes up to the body's {length}, not {json_length!r}",
                "Inference-Header-Content-Length",
            )
        length = int(json_length)
    try:
        try:
            request = _decoder.decode(body[:length])
        except msgspec.ValidationError:
            raise
        except (msgspec.DecodeError, UnicodeDecodeError):
            # Clients send bare NaN, which only the standard library's parser accepts.
            request = msgspec.convert(json.loads(body[:length]), InferenceRequest)
    except msgspec.ValidationError as error:
        raise BadInput(*_told(error)) from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"The body is not JSON: {error}") from None
    return request, memoryview(body)[length:]


def read_rows(request: InferenceRequest, binary: memoryview, names: Sequence[str]) -> Rows:
    """The request's values, shape (rows, features), NaN if missing.

    Raises BadInput naming the tensor.
    """
    if [tensor.name for tensor in request.inputs] == [MATRIX] and MATRIX not in names:
        return _matrix(request.inputs[0], binary, len(names))
    columns: dict[str, NDArray[np.float64]] = {}
    for tensor in request.inputs:
        if tensor.name not in names:
            raise BadInput("is not an input of the model", tensor.name)
        if tensor.name in columns:
            raise BadInput("is given twice", tensor.name)
        values, binary = _values(tensor, binary)
        if np.isinf(values).any():
            raise BadInput("must be finite; null or NaN where missing", tensor.name)
        columns[tensor.name] = values
    if binary:
        raise BadInput(f"The body has {len(binary)} bytes that belong to no input.")
    for name in names:
        if name not in columns:
            raise BadInput("is missing; the model needs it", name)
        if len(columns[name]) != len(columns[names[0]]):
            raise BadInput(
                f"has {len(columns[name])} rows, {names[0]} has {len(columns[names[0]])}", name
            )
    return np.stack([columns[name] for name in names], axis=1)


def _matrix(tensor: Tensor, binary: memoryview, width: int) -> Rows:
    """Reads the tensor `features`, row by row."""
    if len(tensor.shape) != 2 or tensor.shape[1] != width:
        raise BadInput(f"shape must be [rows, {width}], not {tensor.shape}", tensor.name)
    count = tensor.shape[0] * width
    data = tensor.data
    if isinstance(data, list) and data and all(isinstance(row, list) for row in data):
        if any(len(row) != width for row in data):
            raise BadInput(f"each row must have {width} values", tensor.name)
        data = [value for row in data for value in row]
    flat = Tensor(tensor.name, [count], tensor.datatype, tensor.parameters, data)
    values, binary = _values(flat, binary)
    if binary:
        raise BadInput(f"The body has {len(binary)} bytes that belong to no input.")
    if np.isinf(values).any():
        raise BadInput("must be finite; null or NaN where missing", tensor.name)
    return values.reshape(-1, width)


def _values(tensor: Tensor, binary: memoryview) -> tuple[NDArray[np.float64], memoryview]:
    if "shared_memory_region" in (tensor.parameters or {}):
        raise BadInput("shared memory is not supported", tensor.name)
    if tensor.datatype not in NUMBERS:
        raise BadInput(
            f"datatype must be FP64, or another number, not {tensor.datatype!r}", tensor.name
        )
    shape = tensor.shape
    if not shape or shape[0] < 0 or shape[1:] not in ([], [1]):
        raise BadInput(f"shape must be [rows] or [rows, 1], not {shape}", tensor.name)
    size = (tensor.parameters or {}).get("binary_data_size")
    if size is None:
        values = _from_json(tensor)
    else:
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(binary):
            raise BadInput(
                f"binary_data_size is {size!r}, the body has {len(binary)} more bytes", tensor.name
            )
        dtype = np.dtype(NUMBERS[tensor.datatype])
        if size != shape[0] * dtype.itemsize:
            raise BadInput(
                f"binary_data_size is {size}, {shape} of {tensor.datatype} "
                f"takes {shape[0] * dtype.itemsize}",
                tensor.name,
            )
        values = np.frombuffer(binary[:size], dtype).astype(np.float64)
        binary = binary[size:]
    if len(values) != shape[0]:
        raise BadInput(f"has {len(values)} values, its shape is {shape}", tensor.name)
    return values, binary


def _from_json(tensor: Tensor) -> NDArray[np.float64]:
    data = tensor.data
    if not isinstance(data, list):
        raise BadInput("must have either data (a list) or binary_data_size", tensor.name)
    if data and all(isinstance(value, list) and len(value) == 1 for value in data):
        data = [value for [value] in data]
    if not set(map(type, data)) <= {int, float, type(None)}:
        raise BadInput("data must be numbers, or null where missing", tensor.name)
    try:
        return np.array(data, dtype=np.float64)
    except OverflowError:
        raise BadInput("must be finite; null or NaN where missing", tensor.name) from None


def write_response(
    document: dict[str, Any], outputs: dict[str, NDArray[Any]], request: InferenceRequest
) -> tuple[bytes, int | None]:
    """Adds the requested outputs to `document` and encodes it.

    Returns the body and, if it has a binary part, the length of its JSON part.
    """
    by_default = (request.parameters or {}).get("binary_data_output") is True
    tensors, parts = [], []
    names: set[str] = set()
    for asked in request.outputs or [Requested(name) for name in outputs]:
        if asked.name in names:
            raise BadInput("is requested twice", asked.name)
        names.add(asked.name)
        parameters = asked.parameters or {}
        if asked.name not in outputs:
            raise BadInput("is not an output of the model", asked.name)
        for unsupported in ("classification", "shared_memory_region"):
            if unsupported in parameters:
                raise BadInput(f"{unsupported} is not supported", asked.name)
        values = outputs[asked.name]
        tensor: dict[str, Any] = {
            "name": asked.name,
            "datatype": datatype(values),
            "shape": list(values.shape),
        }
        if parameters.get("binary_data", by_default) is True:
            part = _binary(values)
            tensor["parameters"] = {"binary_data_size": len(part)}
            parts.append(part)
        else:
            tensor["data"] = values.ravel().tolist()
        tensors.append(tensor)
    head = msgspec.json.encode({**document, "outputs": tensors})
    return b"".join([head, *parts]), len(head) if parts else None


def datatype(values: NDArray[Any]) -> str:
    """The protocol's name for an output's type."""
    return {"f": "FP64", "i": "INT64"}.get(values.dtype.kind, "BYTES")


def _binary(values: NDArray[Any]) -> bytes:
    if datatype(values) != "BYTES":
        return values.astype(values.dtype.newbyteorder("<")).tobytes()
    texts = [text.encode() for text in values.ravel().tolist()]
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def _told(error: msgspec.ValidationError) -> tuple[str, str | None]:
    """msgspec's message, and the path in it."""
    sentence, _, path = str(error).partition(" - at ")
    return sentence, path.strip("`") or None
