"""Fuzzes the parsers of events, of messages, and of the model API's tensors."""

import json
import math
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from buffer.sse import CUT, KEPT, Event, EventParser
from modelapi.api_errors import ApiError, BadInput, TooLarge
from modelapi.predictor import Rows
from modelapi.tensors import NUMBERS, REQUEST, read_request, read_rows
from tests.support.fuzz.damage import damaged, pieces
from wire.messages import CODES, Message, Rejected, decode
from wire.stream_clock import stream_clock

LIMIT = 5_000
LINE_ENDS = (b"\n", b"\r\n", b"\r")
NOISE = (b": keep-alive", b"retry: 100", b"event: message", b"x: y", b"data", b"id")


def events(rng: random.Random, inputs: int) -> Counter[str]:
    """Checks that the events of a stream do not depend on where the stream is cut into chunks, and
    that damaged streams raise nothing.
    """
    counts: Counter[str] = Counter()
    for number in range(inputs):
        if rng.random() < 0.3:
            text = damaged(rng, _stream(rng, number)[0])
            whole, cut = _parsed([text]), _parsed(pieces(rng, text))
            # Whether an event at the size limit is truncated depends on the place of the cut.
            assert whole == cut or len(text) > LIMIT, text
            counts["damaged"] += 1
            continue
        text, sent = _stream(rng, number)
        found = _parsed(pieces(rng, text))
        assert [event.id for event in found] == [event.id for event in sent], text
        for event, expected in zip(found, sent, strict=True):
            if event != expected:
                assert len(expected.data) > LIMIT - 100, text
                assert CUT in event.data
                assert len(event.data) <= KEPT + 10
                counts["truncated"] += 1
        counts["events"] += len(found)
    return counts


def _parsed(chunks: Any) -> list[Event]:
    parser = EventParser(LIMIT)
    return [event for chunk in chunks for event in parser.feed(chunk)]


def _stream(rng: random.Random, number: int) -> tuple[bytes, list[Event]]:
    """Draws a few events; returns their bytes and the events."""
    text, sent = rng.choice((b"", b"", b"", b"\xef\xbb\xbf")), []
    for position in range(rng.randint(1, 4)):
        end = rng.choice(LINE_ENDS)
        id_ = f"s-{number}-{position}"
        data = [rng.choice((b"", b'{"a":1}', b"x: y", rng.randbytes(8).hex().encode()))]
        if rng.random() < 0.2:
            data.append(b"second line")
        if rng.random() < 0.005:
            data = [b"d" * rng.randint(LIMIT - 20, LIMIT + 20)]
        if data == [b""]:
            data = [b"-"]
        lines = [b"id: " + id_.encode(), *(b"data: " + line for line in data)]
        if rng.random() < 0.2 and len(data[0]) < 100:
            lines.insert(0, rng.choice(NOISE[:4]))
        text += b"".join(line + end for line in lines) + end
        sent.append(Event("message", id_, b"\n".join(data)))
    return text, sent


MESSAGES: tuple[dict[str, Any], ...] = (
    {
        **{"type": "reading", "pat_id": 17, "age": 63.2, "date_admission": "2019-02-01"},
        **{"date_discharge": None, "day": "2019-02-03", "hour": 7, "minute": 25, "second": 1},
        **{"parameter": "heart_rate", "value": 80.5},
    },
    {
        **{"type": "discharge", "pat_id": 17, "age": None, "date_admission": "2019-02-01"},
        **{"date_discharge": "2019-02-05", "day": "2019-02-05", "hour": 24},
    },
    {
        **{"type": "admission", "pat_id": 17, "age": 63, "date_admission": "2019-02-01"},
        **{"day": "2019-02-01", "place": "bed 4", "identifier": "K-17"},
    },
    {"type": "withdrawal", "pat_id": 17, "date_admission": "2019-02-01", "of": 4},
    {
        **{"type": "outcome", "pat_id": 17, "date_admission": "2019-02-01", "name": "died"},
        **{"value": 1, "day": "2019-02-04", "hour": 3},
    },
    {
        **{"type": "acknowledgement", "pat_id": 17, "date_admission": "2019-02-01"},
        **{"author": "Ada", "day": "2019-02-04", "model": "formula", "snooze_hours": 4},
    },
)
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 24, 60, 1e100, -1e101, 2**63, -(2**63), 2**64, 10**40, 0.1, 1e-320),
    *("", " ", "x" * 65, "2019-02-30", "2019-2-3", "9999-12-31", "0001-01-01", "٢٠١٩-02-03"),
    *("\u202e", "\ud800", "a\nb", "constructor", "risk", [], {}, [[]], "reading", "unknown", 7.5),
)


def messages(rng: random.Random, inputs: int) -> Counter[str]:
    """Checks that each message is decoded or rejected with a code, and that a decoded message is
    the same after it has been encoded and decoded again.
    """
    counts: Counter[str] = Counter()
    for _ in range(inputs):
        message = dict(rng.choice(MESSAGES))
        for _ in range(rng.randint(0, 2)):
            message[rng.choice((*message, "x"))] = rng.choice(VALUES)
        text = json.dumps(message, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
        if rng.random() < 0.5:
            text = damaged(rng, text, 2)
        stream_clock(text)
        found = _decoded(text)
        if isinstance(found, Rejected):
            assert found.code in CODES, found.code
            assert str(found).encode(), text
            counts[found.code] += 1
            continue
        again = msgspec.json.encode(found)
        assert decode(again) == found == msgspec.json.decode(again, type=Message), text
        counts["decoded"] += 1
    return counts


def _decoded(text: bytes) -> Message | Rejected:
    try:
        return decode(text)
    except Rejected as error:
        return error


NAMES = ("age", "last_heart_rate")
ODD = (
    *((b'"FP64"', f'"{name}"'.encode()) for name in (*NUMBERS, "BOOL", "BYTES", "")),
    *((b'"shape": [', b'"shape": [' + more) for more in (b"1, ", b"-1, ", b"2147483647, ", b"[")),
    *(
        (b'"data": [', b'"data": ' + more)
        for more in (b"[[", b"[null, ", b'["1", ', b"{}, [", b"[1e999,")
    ),
    *(
        (b'"binary_data_size": ', b'"binary_data_size": ' + more)
        for more in (b"1", b"-", b"null, 1")
    ),
    *((b'"name": "age"', b'"name": ' + name) for name in (b'"features"', b"null", b'"\\ud800"')),
    (b'"inputs": [', b'"parameters": {"binary_data_output": 3}, "inputs": ['),
    (b'"inputs": [', b'"outputs": [{"name": "x"}], "inputs": [null, '),
)


def tensors(rng: random.Random, inputs: int) -> Counter[str]:
    """Checks that valid requests, in JSON and binary, give their values, and that damaged requests
    are read or rejected with a short message.
    """
    counts: Counter[str] = Counter()
    for _ in range(inputs):
        rows = rng.choice((0, 1, 1, 2, 3, 7))
        values = np.array([[_number(rng) for _ in NAMES] for _ in range(rows)]).reshape(rows, 2)
        body, length = rng.choice(FORMS)(rng, values)
        whole = rng.random() < 0.4
        if not whole:
            old, new = rng.choice(ODD)
            body = damaged(rng, body.replace(old, new, 1), 2)
            length = rng.choice((length, length, None, "0", "-1", "9" * 12, "x", str(len(body))))
        found = _rows(body, length)
        if isinstance(found, ApiError):
            assert not whole, body
            assert len(str(found)) < 800
            counts["rejected"] += 1
            continue
        assert found.shape[1] == len(NAMES)
        assert found.dtype == np.float64
        assert not np.isinf(found).any(), body
        if whole:
            np.testing.assert_array_equal(found, values)
        counts["whole" if whole else "read"] += 1
    return counts


def _rows(body: bytes, length: str | None) -> Rows | BadInput | TooLarge:
    try:
        return read_rows(*read_request(body, length, REQUEST), NAMES)
    except (BadInput, TooLarge) as error:
        return error


def _number(rng: random.Random) -> float:
    return rng.choice((math.nan, 0.0, -0.0, 5e-324, 1e300, 80.0, rng.uniform(-200, 200)))


def _json_columns(rng: random.Random, values: Any) -> tuple[bytes, None]:
    """One tensor per feature, of shape [rows] or [rows, 1]."""
    inputs = []
    for name, column in zip(NAMES, values.T, strict=True):
        flat = [None if math.isnan(value) else value for value in column.tolist()]
        nested = bool(flat) and rng.random() < 0.3
        shape = [len(flat), 1] if nested else [len(flat)]
        data = [[value] for value in flat] if nested else flat
        inputs.append({"name": name, "shape": shape, "datatype": "FP64", "data": data})
    rng.shuffle(inputs)
    return json.dumps({"id": "1", "inputs": inputs}).encode(), None


def _json_matrix(rng: random.Random, values: Any) -> tuple[bytes, None]:
    """One tensor `features`, in which a missing value is the literal NaN."""
    data = values.tolist() if rng.random() < 0.5 else values.ravel().tolist()
    tensor = {"name": "features", "shape": [len(values), 2], "datatype": "FP64", "data": data}
    return json.dumps({"inputs": [tensor]}).encode(), None


def _binary(rng: random.Random, values: Any) -> tuple[bytes, str]:
    """One or two tensors after the JSON part."""
    matrix = rng.random() < 0.5
    parts = [values] if matrix else list(values.T)
    inputs = []
    for name, part in zip(("features",) if matrix else NAMES, parts, strict=True):
        size = part.size * np.dtype(NUMBERS["FP64"]).itemsize
        inputs.append(
            {
                **{"name": name, "shape": list(part.shape), "datatype": "FP64"},
                "parameters": {"binary_data_size": size},
            }
        )
    head = json.dumps({"inputs": inputs}).encode()
    return head + b"".join(np.ascontiguousarray(part).tobytes() for part in parts), str(len(head))


FORMS: tuple[Callable[[random.Random, Any], tuple[bytes, str | None]], ...] = (
    _json_columns,
    _json_matrix,
    _binary,
)
