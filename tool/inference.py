"""Requests of the Open Inference Protocol, version 2: one binary matrix of features.

https://github.com/kserve/open-inference-protocol, with the extension for binary tensors:
little-endian numbers follow the JSON part of a body.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from math import nan
from struct import Struct
from urllib.parse import quote

import msgspec

LENGTH = "Inference-Header-Content-Length"


class _Output(msgspec.Struct):
    name: str
    data: list[float] | None = None


class _Answer(msgspec.Struct):
    model_name: str
    outputs: list[_Output]
    model_version: str | None = None


_answer = msgspec.json.Decoder(_Answer)


def path(model: str, version: str) -> str:
    return f"/v2/models/{quote(model, safe='')}/versions/{quote(version, safe='')}/infer"


def request(rows: Sequence[Sequence[float | None]]) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a request for the probability of each row; None is a missing value."""
    width = len(rows[0])
    values = list(chain.from_iterable(rows))
    if None in values:
        values = [nan if value is None else value for value in values]
    return of_matrix(Struct(f"<{len(values)}d").pack(*values), len(rows), width)


def of_matrix(matrix: bytes, rows: int, width: int) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a request for the probability of each row. matrix: little-endian doubles,
    row by row, NaN where missing."""
    head = msgspec.json.encode(
        {
            "inputs": [
                {
                    "name": "features",
                    "shape": [rows, width],
                    "datatype": "FP64",
                    "parameters": {"binary_data_size": len(matrix)},
                }
            ],
            "outputs": [{"name": "probability", "parameters": {"binary_data": True}}],
        }
    )
    headers = {"Content-Type": "application/octet-stream", LENGTH: str(len(head))}
    return head + matrix, headers


def probabilities(
    model: str, version: str, body: bytes, headers: Mapping[str, str]
) -> Sequence[float]:
    """The probabilities in an answer, in binary or in JSON. Raises ValueError if it is invalid, or
    if another model answered."""
    length = int(headers.get(LENGTH, len(body)))
    answer = _answer.decode(body[:length])
    if (answer.model_name, answer.model_version or version) != (model, version):
        raise ValueError(
            f"{answer.model_name} {answer.model_version} answered instead of {model} {version}"
        )
    for output in answer.outputs:
        if output.name == "probability":
            if output.data is not None:
                return output.data
            count, rest = divmod(len(body) - length, 8)
            if rest:
                raise ValueError(f"{len(body) - length} bytes are not whole FP64 numbers")
            return Struct(f"<{count}d").unpack(body[length:])
    raise ValueError("the answer has no output named probability")
