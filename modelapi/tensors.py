"""Tensors of the Open Inference Protocol, as JSON and in the binary extension.

An inference request has either one tensor per feature, of shape [rows] or [rows, 1], or one tensor
`features` of shape [rows, features], whose columns are in the manifest's order.
"""

import re
import struct
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta, Raw
from numpy.typing import NDArray

from modelapi.api_errors import BadInput
from modelapi.content import Decoder, as_utf8, decode
from modelapi.limits import require_size
from modelapi.predictor import Rows

NUMBERS = {
    "FP64": "<f8", "FP32": "<f4", "FP16": "<f2",
    "INT8": "<i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
}  # fmt: skip


MATRIX = "features"

_NOT_FINITE = "must be finite; null or NaN where missing"


class TensorParameters(msgspec.Struct):
    """The parameters that this server reads from an input."""

    binary_data_size: Annotated[int, Meta(ge=0)] | None = None
    shared_memory_region: Raw = Raw()


class Tensor(msgspec.Struct):
    """An input; its values are in `data`, or after the JSON part of the body."""

    name: str
    shape: Annotated[list[Annotated[int, Meta(ge=0, lt=2**31)]], Meta(min_length=1, max_length=2)]
    datatype: str
    parameters: TensorParameters | None = None
    data: Raw = Raw()


class OutputParameters(msgspec.Struct):
    """The parameters that this server reads from a requested output."""

    binary_data: bool | None = None
    classification: Raw = Raw()
    shared_memory_region: Raw = Raw()


class Requested(msgspec.Struct):
    """An output that the client requests."""

    name: str
    parameters: OutputParameters | None = None


class RequestParameters(msgspec.Struct):
    """The parameters that this server reads from a request."""

    binary_data_output: bool | None = None


class InferenceRequest(msgspec.Struct):
    """An inference request without its binary part."""

    inputs: list[Tensor]
    id: str | None = None
    parameters: RequestParameters | None = None
    outputs: list[Requested] | None = None


REQUEST = msgspec.json.Decoder(InferenceRequest)
_flat = msgspec.json.Decoder(list[float | None])
_nested = msgspec.json.Decoder(list[list[float | None]])

# The values of a tensor, without texts and objects.
_DATA = re.compile(rb'"data"\s*:\s*\[[^"{}]*')


def read_request(body: bytes, json_length: str | None, decoder: Decoder) -> tuple[Any, memoryview]:
    """Splits a body into the request and the binary part. json_length: the header with the length
    of the JSON part; None if the whole body is JSON. decoder: of the JSON part. Raises BadInput."""
    length = len(body)
    if json_length is not None:
        if not re.fullmatch(r"[0-9]{1,10}", json_length) or int(json_length) > length:
            raise BadInput(
                f"must be a number of bytes up to the body's {length}, not {json_length!r}",
                "Inference-Header-Content-Length",
            )
        length = int(json_length)
    text = as_utf8(body[:length])
    try:
        try:
            request = decode(text, decoder)
        except BadInput:
            if b"NaN" not in text and b"Infinity" not in text:
                raise
            request = decode(_DATA.sub(_as_json, text), decoder)
    except msgspec.ValidationError as error:
        sentence, _, path = str(error).partition(" - at ")
        raise BadInput(sentence, path.strip("`").removeprefix("$.") or None) from None
    return request, memoryview(body)[length:]


def _as_json(data: re.Match[bytes]) -> bytes:
    """Makes a tensor's values valid JSON: NaN becomes null, and Infinity a number that a later
    check rejects as out of range."""
    return data[0].replace(b"NaN", b"null").replace(b"Infinity", b"1e999")


def read_rows(request: InferenceRequest, binary: memoryview, names: Sequence[str]) -> Rows:
    """The request's values, shape (rows, features), NaN where missing.

    Raises TooLarge, or BadInput, which names the tensor unless the body has too many bytes.
    """
    if [tensor.name for tensor in request.inputs] == [MATRIX] and MATRIX not in names:
        return _matrix(request.inputs[0], binary, len(names))
    columns: dict[str, NDArray[np.float64]] = {}
    for tensor in request.inputs:
        if tensor.name not in names:
            raise BadInput("is not an input of the model", tensor.name)
        if tensor.name in columns:
            raise BadInput("is given twice", tensor.name)
        if tensor.shape[1:] not in ([], [1]):
            raise BadInput(f"shape must be [rows] or [rows, 1], not {tensor.shape}", tensor.name)
        require_size(tensor.shape[0], len(names))
        columns[tensor.name], binary = _values(tensor, binary, 1)
    if binary:
        raise BadInput(f"The body has {len(binary)} bytes that belong to no input.")
    for name in names:
        if name not in columns:
            raise BadInput("is missing; the model needs it", name)
        if len(columns[name]) != len(columns[names[0]]):
            raise BadInput(
                f"has {len(columns[name])} rows, but {names[0]} has {len(columns[names[0]])}", name
            )
    return np.stack([columns[name] for name in names], axis=1)


def _matrix(tensor: Tensor, binary: memoryview, width: int) -> Rows:
    """The values of the tensor `features`, shape (rows, features)."""
    if len(tensor.shape) != 2 or tensor.shape[1] != width:
        raise BadInput(f"shape must be [rows, {width}], not {tensor.shape}", tensor.name)
    require_size(tensor.shape[0], width)
    values, binary = _values(tensor, binary, width)
    if binary:
        raise BadInput(f"The body has {len(binary)} bytes that belong to no input.")
    return values.reshape(-1, width)


def _values(
    tensor: Tensor, binary: memoryview, width: int
) -> tuple[NDArray[np.float64], memoryview]:
    """The tensor's values, and what remains of the binary part."""
    parameters = tensor.parameters or TensorParameters()
    if bytes(parameters.shared_memory_region):
        raise BadInput("shared memory is not supported", tensor.name)
    if tensor.datatype not in NUMBERS:
        raise BadInput(
            f"datatype must be FP64 or another numeric type, not {tensor.datatype!r}", tensor.name
        )
    size = parameters.binary_data_size
    if size is None:
        return _from_json(tensor, width), binary
    if size > len(binary):
        raise BadInput(
            f"binary_data_size is {size}, but the body has only {len(binary)} more bytes",
            tensor.name,
        )
    dtype = np.dtype(NUMBERS[tensor.datatype])
    expected = tensor.shape[0] * width * dtype.itemsize
    if size != expected:
        raise BadInput(
            f"binary_data_size is {size}, but {tensor.datatype} {tensor.shape} takes {expected}",
            tensor.name,
        )
    values = np.frombuffer(binary[:size], dtype).astype(np.float64)
    if np.isinf(values).any():
        raise BadInput(_NOT_FINITE, tensor.name)
    return values, binary[size:]


def _from_json(tensor: Tensor, width: int) -> NDArray[np.float64]:
    """The values in `data`, flat or in lists of `width`."""
    content = bytes(tensor.data)
    if not content.startswith(b"["):
        raise BadInput("data must be a list, unless binary_data_size is given", tensor.name)
    # The values are counted before decoding, so that data longer than the shape does not use
    # memory.
    count = content.count(b",") + 1 if content.strip(b"[] \t\r\n") else 0
    if count != tensor.shape[0] * width:
        raise BadInput(f"has {count} values, but its shape is {tensor.shape}", tensor.name)
    try:
        if content[1:].lstrip().startswith(b"["):
            lists = _nested.decode(content)
            if any(len(values) != width for values in lists):
                raise BadInput(f"each list in data must have {width} values", tensor.name)
            return np.array(lists, dtype=np.float64).ravel()
        return np.array(_flat.decode(content), dtype=np.float64)
    except msgspec.ValidationError as error:
        if "out of range" in str(error):
            raise BadInput(_NOT_FINITE, tensor.name) from None
        raise BadInput("data must be numbers, or null where missing", tensor.name) from None


def write_outputs(
    outputs: dict[str, NDArray[Any]], request: InferenceRequest
) -> tuple[list[dict[str, Any]], list[bytes]]:
    """The requested outputs as tensors, and the binary parts that follow the JSON part of the
    response. Raises BadInput for an invalid request of an output.
    """
    by_default = bool(request.parameters and request.parameters.binary_data_output)
    tensors: list[dict[str, Any]] = []
    parts: list[bytes] = []
    names: set[str] = set()
    for asked in request.outputs or [Requested(name) for name in outputs]:
        if asked.name in names:
            raise BadInput("is requested twice", asked.name)
        names.add(asked.name)
        parameters = asked.parameters or OutputParameters()
        if asked.name not in outputs:
            raise BadInput("is not an output of the model", asked.name)
        if bytes(parameters.classification) or bytes(parameters.shared_memory_region):
            raise BadInput("classification and shared memory are not supported", asked.name)
        values = outputs[asked.name]
        tensor: dict[str, Any] = {
            "name": asked.name,
            "datatype": datatype(values),
            "shape": list(values.shape),
        }
        if by_default if parameters.binary_data is None else parameters.binary_data:
            part = _binary(values)
            tensor["parameters"] = {"binary_data_size": len(part)}
            parts.append(part)
        else:
            tensor["data"] = values.ravel().tolist()
        tensors.append(tensor)
    return tensors, parts


def datatype(values: NDArray[Any]) -> str:
    """The protocol's name for an output's type."""
    return {"f": "FP64", "i": "INT64"}.get(values.dtype.kind, "BYTES")


def _binary(values: NDArray[Any]) -> bytes:
    if datatype(values) != "BYTES":
        return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
    texts = [text.encode() for text in values.ravel().tolist()]
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)
