"""Requests of the Open Inference Protocol, version 2: one binary matrix of features per model.

https://github.com/kserve/open-inference-protocol, with the extension for binary tensors:
little-endian numbers follow the JSON part of a body. The project's model API also answers requests
for several models in one body.
"""

import struct
from collections.abc import Mapping, Sequence
from itertools import starmap
from math import nan
from struct import Struct
from typing import Any
from urllib.parse import quote

import msgspec

LENGTH = "Inference-Header-Content-Length"
# The path for several models.
ALL = "/v2/infer"

Rows = Sequence[Sequence[float | None]]
Body = tuple[bytes, dict[str, str]]  # with its headers


class _Parameters(msgspec.Struct):
    binary_data_size: int | None = None


class _Output(msgspec.Struct):
    name: str
    data: list[float] | None = None
    parameters: _Parameters | None = None


class _Answer(msgspec.Struct):
    model_name: str
    model_version: str | None = None
    outputs: list[_Output] = []


class _AnswerOfMany(_Answer):
    status: int = 200
    error: str = ""


class _Answers(msgspec.Struct):
    responses: list[_AnswerOfMany]


class Failed(Exception):
    """One of the requests in a body failed, with this status."""

    def __init__(self, status: int, error: str) -> None:
        super().__init__(error)
        self.status = status


_answer = msgspec.json.Decoder(_Answer)
_answers = msgspec.json.Decoder(_Answers)


def path(model: str, version: str) -> str:
    return f"/v2/models/{quote(model, safe='')}/versions/{quote(version, safe='')}/infer"


def request(rows: Rows) -> Body:
    """Body and headers of a request for the probability of each row; None or NaN is a missing
    value."""
    return of_matrix(_matrix(rows), len(rows), len(rows[0]))


def of_matrix(matrix: bytes, rows: int, width: int) -> Body:
    """Body and headers of a request for the probability of each row. matrix: little-endian doubles,
    row by row, NaN where missing."""
    return _body(_document(matrix, rows, width), [matrix])


def requests(asked: Sequence[tuple[str, str, Rows]]) -> Body:
    """Body and headers of one request per model. asked: name, version and rows of each model."""
    documents, matrices = [], []
    for model, version, rows in asked:
        matrix = _matrix(rows)
        document = _document(matrix, len(rows), len(rows[0]))
        documents.append(document | {"model_name": model, "model_version": version})
        matrices.append(matrix)
    return _body({"requests": documents}, matrices)


def _matrix(rows: Rows) -> bytes:
    pack = Struct(f"<{len(rows[0])}d").pack
    try:
        return b"".join(starmap(pack, rows))
    except struct.error:  # a value is None
        return b"".join(pack(*[nan if value is None else value for value in row]) for row in rows)


def _document(matrix: bytes, rows: int, width: int) -> dict[str, Any]:
    features = {
        "name": "features",
        "shape": [rows, width],
        "datatype": "FP64",
        "parameters": {"binary_data_size": len(matrix)},
    }
    outputs = [{"name": "probability", "parameters": {"binary_data": True}}]
    return {"inputs": [features], "outputs": outputs}


def _body(document: dict[str, Any], matrices: Sequence[bytes]) -> Body:
    head = msgspec.json.encode(document)
    headers = {"Content-Type": "application/octet-stream", LENGTH: str(len(head))}
    return b"".join([head, *matrices]), headers


def probabilities(
    model: str, version: str, body: bytes, headers: Mapping[str, str]
) -> Sequence[float]:
    """The probabilities in an answer, in binary or in JSON. Raises ValueError if it is invalid, or
    if another model answered."""
    length = int(headers.get(LENGTH, len(body)))
    found, _ = _read(_answer.decode(body[:length]), model, version, body[length:])
    return found


def all_probabilities(
    asked: Sequence[tuple[str, str]], body: bytes, headers: Mapping[str, str]
) -> list[Sequence[float] | Failed]:
    """The probabilities of each model, or the error of its request. Raises the errors of
    `probabilities`. asked: name and version of each model."""
    length = int(headers.get(LENGTH, len(body)))
    answers, rest = _answers.decode(body[:length]).responses, body[length:]
    found: list[Sequence[float] | Failed] = []
    for (model, version), answer in zip(asked, answers, strict=True):
        if answer.status == 200:
            values, rest = _read(answer, model, version, rest)
            found.append(values)
        else:
            found.append(Failed(answer.status, answer.error))
    return found


def _read(
    answer: _Answer, model: str, version: str, binary: bytes
) -> tuple[Sequence[float], bytes]:
    """The probabilities, and the bytes after them."""
    if (answer.model_name, answer.model_version or version) != (model, version):
        raise ValueError(
            f"{answer.model_name} {answer.model_version} answered instead of {model} {version}"
        )
    for output in answer.outputs:
        if output.name == "probability":
            if output.data is not None:
                return output.data, binary
            parameters = output.parameters or _Parameters()
            size = parameters.binary_data_size
            values = binary if size is None else binary[:size]
            count, rest = divmod(len(values), 8)
            if rest:
                raise ValueError(f"{len(values)} bytes are not whole FP64 numbers")
            return Struct(f"<{count}d").unpack(values), binary[len(values) :]
    raise ValueError("the answer has no output named probability")
