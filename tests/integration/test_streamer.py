"""Tests hospital's stream over HTTP, its pacing, and the whole program."""

import asyncio
import csv
import hashlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.request import Request

import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer

from hospital import replay as replay_module
from hospital.merge import prepare
from hospital.replay import Replay
from hospital.settings import Settings
from hospital.streamer_aiohttp import Subscription, create_app
from hospital.synthetic import write_ward
from wire.settings import SettingError, read
from wire.sse import KEEP_ALIVE

ROOT = Path(__file__).parents[2]
HEADER = "type;pat_id;age;date_admission;date_discharge;day;hour;parameter;value"
ODD_NAMES = ["blood_pressure", 'say "ah"', "back\\slash", "température", "line\x85end", "a,b"]


def rows(count: int) -> Iterator[dict[str, str]]:
    """Messages of five stays, of which one has no age and one no discharge. Each 7th message is a
    discharge, unless its stay has none.
    """
    for number in range(count):
        pat_id = number % 5
        row = {
            "type": "reading",
            "pat_id": str(pat_id),
            "age": "" if pat_id == 3 else f"{40 + pat_id}.5",
            "date_admission": "2019-02-01",
            "date_discharge": "" if pat_id == 4 else f"2019-03-0{1 + pat_id}",
            "day": "2019-02-03",
            "hour": str(number % 24),
            "parameter": ODD_NAMES[number % len(ODD_NAMES)],
            "value": ["118.4", "-0.5", "1e-07", "36.6", "110.0"][number % 5],
        }
        if number % 7 == 6 and row["date_discharge"]:
            row |= {"type": "discharge", "day": row["date_discharge"]}
            row |= {"hour": "", "parameter": "", "value": ""}
        yield row


def write_all_data(folder: Path, count: int, every: int = 10) -> str:
    """Writes all_data.csv, and all_data.json with an index entry for every `every` messages;
    returns the SHA-256 of all_data.csv.
    """
    lines = [HEADER, *(";".join(row.values()) for row in rows(count))]
    encoded = [f"{line}\n".encode() for line in lines]
    readings = [row["type"] == "reading" for row in rows(count)]
    sha256 = hashlib.sha256(b"".join(encoded)).hexdigest()
    index = {
        "sha256": sha256,
        "messages": count,
        "readings": sum(readings),
        "discharges": count - sum(readings),
        "offsets": [
            [sum(map(len, encoded[: 1 + number])), number, sum(readings[:number])]
            for number in range(0, count, every)
        ],
    }
    (folder / "all_data.csv").write_bytes(b"".join(encoded))
    (folder / "all_data.json").write_text(json.dumps(index))
    return sha256


def expected_messages(folder: Path, mode: str) -> list[dict[str, Any]]:
    """The messages that are expected from all_data.csv in a mode, read with the csv module."""
    messages = []
    with (folder / "all_data.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter=";", quoting=csv.QUOTE_NONE):
            discharge = row["type"] == "discharge"
            if discharge and mode == "hindsight":
                continue
            told = discharge or mode == "hindsight"
            message: dict[str, Any] = {
                "type": row["type"],
                "pat_id": int(row["pat_id"]),
                "age": float(row["age"]) if row["age"] else None,
                "date_admission": row["date_admission"],
                "date_discharge": (row["date_discharge"] or None) if told else None,
                "day": row["day"],
            }
            if not discharge:
                message |= {"hour": int(row["hour"]), "parameter": row["parameter"]}
                message |= {"value": float(row["value"])}
            messages.append(message)
    return messages


def parse(body: str) -> list[tuple[str, dict[str, Any]]]:
    """Returns the events of a whole stream as (id, message), and checks that it ends with the end
    event.
    """
    *events, end, rest = body.split("\n\n")
    assert rest == ""
    parsed = []
    for event in events:
        head, data = event.split("\n")
        assert head.startswith("id: ")
        assert data.startswith("data: ")
        message = json.loads(data[6:])
        compact = json.dumps(message, separators=(",", ":"))
        assert data[6:] == compact
        parsed.append((head[4:], message))
    last = end.split("\n")[1][4:]
    assert end == f"event: end\nid: {last}\ndata: {{}}"
    assert not parsed or last == parsed[-1][0]
    return parsed


@pytest.fixture(params=["live", "hindsight"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def replay(tmp_path: Path, mode: str) -> Iterator[Replay]:
    write_all_data(tmp_path, 200)
    with Replay(tmp_path, mode) as opened:
        yield opened


def test_each_replay_number_gives_another_stream_with_the_same_messages(tmp_path: Path) -> None:
    write_all_data(tmp_path, 20)
    streams, messages = [], []
    for number in (1, 2, 3):
        with Replay(tmp_path, "live", number) as replay:
            streams.append(replay.stream)
            events = [event for some in replay.events(0) for event in some]
            messages.append([event.partition("data:")[2] for event in events])
    assert len(set(streams)) == 3
    assert messages[0] == messages[1] == messages[2]


Scenario = Callable[[TestClient[Any, Any]], Coroutine[Any, Any, None]]


def with_client(scenario: Scenario, replay: Any, mode: str = "live") -> None:
    async def run() -> None:
        app = create_app(Settings(replay_rate=0, replay_mode=mode), replay)
        async with TestClient(TestServer(app)) as client, asyncio.timeout(60):
            await scenario(client)

    asyncio.run(run())


async def until(condition: Callable[[], Coroutine[Any, Any, bool]]) -> None:
    while not await condition():
        await asyncio.sleep(0.01)


class TestStream:
    def test_every_message_is_sent_in_order_with_its_id(
        self, replay: Replay, mode: str, tmp_path: Path
    ) -> None:
        async def scenario(client: TestClient[Any, Any]) -> None:
            response = await client.get("/sub")
            assert response.status == 200
            assert response.content_type == "text/event-stream"
            sha256 = hashlib.sha256((tmp_path / "all_data.csv").read_bytes()).hexdigest()
            stream = hashlib.sha256((sha256 + mode).encode()).hexdigest()[:8]
            assert response.headers["X-Stream"] == stream
            messages = expected_messages(tmp_path, mode)
            expected = [(f"{stream}-{seq}", told) for seq, told in enumerate(messages, 1)]
            received = parse(await response.text())
            assert received == expected
            assert list(received[0][1]) == list(expected[0][1])

        with_client(scenario, replay, mode)

    @pytest.mark.parametrize("block", [64, 1000])
    def test_the_stream_resumes_after_any_last_event_id(
        self, replay: Replay, monkeypatch: pytest.MonkeyPatch, block: int
    ) -> None:
        async def scenario(client: TestClient[Any, Any]) -> None:
            whole = parse(await (await client.get("/sub")).text())
            for known in range(len(whole) + 1):
                event_id = f"{replay.stream}-{known}"
                response = await client.get("/sub", headers={"Last-Event-ID": event_id})
                assert parse(await response.text()) == whole[known:]

        monkeypatch.setattr(replay_module, "BLOCK", block)
        with_client(scenario, replay)

    @pytest.mark.parametrize("event_id", ["", "00000000-150", "A-1", "synthetic-{stream}-1"])
    def test_a_client_of_another_stream_gets_the_whole_stream(
        self, replay: Replay, event_id: str
    ) -> None:
        async def scenario(client: TestClient[Any, Any]) -> None:
            known = event_id.format(stream=replay.stream)
            response = await client.get("/sub", headers={"Last-Event-ID": known})
            assert response.headers["X-Stream"] == replay.stream
            assert parse(await response.text())[0][0] == f"{replay.stream}-1"

        with_client(scenario, replay)

    @pytest.mark.parametrize(
        "event_id",
        [
            "x",
            "12",
            "{stream}",
            "{stream}-",
            "{stream}--1",
            "{stream}-1.5",
            "{stream}-201",
            "{stream}-١",
        ],
    )
    def test_an_impossible_last_event_id_is_rejected(self, replay: Replay, event_id: str) -> None:
        event_id = event_id.format(stream=replay.stream)

        async def scenario(client: TestClient[Any, Any]) -> None:
            for method in ("GET", "HEAD"):
                headers = {"Last-Event-ID": event_id}
                response = await client.request(method, "/sub", headers=headers)
                assert response.status == 400
            response = await client.get("/sub", headers={"Last-Event-ID": event_id})
            assert "Last-Event-ID" in (await response.json())["error"]

        with_client(scenario, replay)

    def test_an_empty_stream_has_only_the_end_event(self, tmp_path: Path) -> None:
        async def scenario(client: TestClient[Any, Any]) -> None:
            assert parse(await (await client.get("/sub")).text()) == []

        write_all_data(tmp_path, 0)
        with Replay(tmp_path, "live") as replay:
            with_client(scenario, replay)

    def test_replacing_the_file_does_not_affect_a_running_replay(
        self, replay: Replay, tmp_path: Path
    ) -> None:
        async def scenario(client: TestClient[Any, Any]) -> None:
            before = await (await client.get("/sub")).text()
            (tmp_path / "new").write_text("type;nothing\n")
            (tmp_path / "new").replace(tmp_path / "all_data.csv")
            assert await (await client.get("/sub")).text() == before

        with_client(scenario, replay)


class EndlessReplay:
    """An endless stream.

    taken: the number of messages that each subscriber has taken, by the number after which it
    started.
    """

    stream = "feedbeef"
    end = 10**12
    synthetic = False

    def __init__(self) -> None:
        self.taken: dict[int, int] = {}
        self.rejected: Counter[str] = Counter()

    def events(self, after: int) -> Iterator[list[str]]:
        self.taken[after] = 0
        while True:
            self.taken[after] += 100
            yield [f"id: feedbeef-1\ndata: {'x' * 200}\n\n"] * 100


async def subscribers(client: TestClient[Any, Any]) -> int:
    return int((await (await client.get("/health")).json())["subscribers"])


class TestSubscribers:
    async def follow(self, client: TestClient[Any, Any], after: int) -> ClientResponse:
        headers = {"Last-Event-ID": f"{EndlessReplay.stream}-{after}"}
        return await client.get("/sub", headers=headers)

    def test_a_stalled_subscriber_takes_little_memory_and_does_not_block_others(self) -> None:
        endless = EndlessReplay()

        async def scenario(client: TestClient[Any, Any]) -> None:
            stalled = await self.follow(client, 1)
            reader = await self.follow(client, 2)
            for _ in range(1000):
                await reader.content.readexactly(100_000)
            # 100 MB were sent in total, but the stalled subscriber was sent only as much as sockets
            # and buffers hold.
            assert endless.taken[2] > 400_000
            assert endless.taken[1] < 60_000
            assert await subscribers(client) == 2
            stalled.close()
            reader.close()

        with_client(scenario, endless)

    def test_a_disconnect_does_not_affect_others(self, caplog: pytest.LogCaptureFixture) -> None:
        async def scenario(client: TestClient[Any, Any]) -> None:
            leaving = [await self.follow(client, after) for after in (1, 2, 3)]
            staying = await self.follow(client, 4)
            await leaving[0].content.readexactly(1_000_000)
            for response in leaving:
                response.close()

            async def alone() -> bool:
                await staying.content.readexactly(100_000)
                return await subscribers(client) == 1

            await until(alone)
            await staying.content.readexactly(1_000_000)
            staying.close()

        with caplog.at_level("INFO", "hospital"):
            with_client(scenario, EndlessReplay())
        told = [record.getMessage() for record in caplog.records if record.name.startswith("hosp")]
        connected = [line for line in told if "connected: feedbeef from message" in line]
        assert len(connected) == 4
        assert sum("disconnected (messages: " in line for line in told) == 4
        assert all(record.levelname == "INFO" for record in caplog.records)

    def test_subscribers_are_disconnected_at_shutdown(self) -> None:
        async def scenario(client: TestClient[Any, Any]) -> None:
            response = await self.follow(client, 1)
            assert client.app is not None
            await client.app.shutdown()

            async def nobody() -> bool:
                return await subscribers(client) == 0

            await until(nobody)
            response.close()

        with_client(scenario, EndlessReplay())

    def test_a_fast_subscriber_does_not_starve_others(self, tmp_path: Path) -> None:
        async def run() -> int:
            with Replay(tmp_path, "live") as replay:
                subscription = Subscription(response, replay, 0, 0)  # type: ignore[arg-type]
                sending = asyncio.create_task(subscription.send())
                turns = 0
                while not sending.done():
                    await asyncio.sleep(0)
                    turns += 1
                return turns

        write_all_data(tmp_path, 2000)
        response = RecordedResponse({})
        assert asyncio.run(run()) >= len(response.writes) > 3


class TestOtherRequests:
    def test_health_describes_the_stream(self, replay: Replay, mode: str) -> None:
        async def scenario(client: TestClient[Any, Any]) -> None:
            response = await client.get("/health")
            assert (response.status, await response.json()) == (
                200,
                {
                    "status": "ok",
                    "stream": replay.stream,
                    "synthetic": False,
                    "messages": len(parse(await (await client.get("/sub")).text())),
                    "rejected_rows": 0,
                    "mode": mode,
                    "rate": 0,
                    "subscribers": 0,
                },
            )

        with_client(scenario, replay, mode)

    def test_requests_get_503_while_the_stream_is_prepared(self) -> None:
        async def scenario(client: TestClient[Any, Any]) -> None:
            response = await client.get("/health")
            assert (response.status, await response.json()) == (503, {"status": "preparing"})
            response = await client.get("/sub")
            assert response.status == 503
            assert response.headers["Retry-After"] == "1"
            assert "prepared" in (await response.json())["error"]

        with_client(scenario, None)

    def test_head_has_only_the_headers(self, replay: Replay) -> None:
        async def scenario(client: TestClient[Any, Any]) -> None:
            response = await client.head("/sub")
            assert response.status == 200
            assert response.headers["X-Stream"] == replay.stream
            assert await response.read() == b""
            assert await subscribers(client) == 0

        with_client(scenario, replay)

    @pytest.mark.parametrize(
        ("method", "path", "status"), [("POST", "/sub", 405), ("GET", "/nothing", 404)]
    )
    def test_errors_are_json(self, replay: Replay, method: str, path: str, status: int) -> None:
        async def scenario(client: TestClient[Any, Any]) -> None:
            response = await client.request(method, path)
            assert response.status == status
            assert str(status) in (await response.json())["error"]

        with_client(scenario, replay)


class VirtualTime(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer when it is idle."""

    def __init__(self) -> None:
        selector = selectors.DefaultSelector()
        self.now = 1000.0
        poll = selector.select

        def select(timeout: float | None = None) -> list[Any]:
            self.now += timeout or 0
            return poll(0)

        selector.select = select  # type: ignore[method-assign]
        super().__init__(selector)

    def time(self) -> float:
        return self.now


class RecordedResponse:
    """Records the time and the text of each write. Write number n takes `pauses[n]` seconds."""

    def __init__(self, pauses: dict[int, float]) -> None:
        self.writes: list[tuple[float, str]] = []
        self._pauses = pauses

    async def write(self, data: bytes) -> None:
        self.writes.append((asyncio.get_running_loop().time() - 1000, data.decode()))
        if pause := self._pauses.get(len(self.writes)):
            await asyncio.sleep(pause)

    async def write_eof(self) -> None:
        pass


class TestPace:
    def sent(
        self, folder: Path, rate: float, count: int, pauses: dict[int, float] | None = None
    ) -> list[tuple[float, str]]:
        """The (second, text) of each write of a whole replay, without the end event."""
        write_all_data(folder, count)
        response = RecordedResponse(pauses or {})

        async def run() -> None:
            with Replay(folder, "live") as replay:
                await Subscription(response, replay, 0, rate).send()  # type: ignore[arg-type]

        with asyncio.Runner(loop_factory=VirtualTime) as runner:
            runner.run(run())
        assert response.writes[-1][1].startswith("event: end")
        return response.writes[:-1]

    @pytest.mark.parametrize("rate", [0.5, 3, 50, 999])
    def test_the_rate_is_exact_on_average(self, tmp_path: Path, rate: float) -> None:
        told = 0
        for second, text in self.sent(tmp_path, rate, 2000):
            told += text.count("id: ")
            # No message is early, and none is late by more than one tick.
            assert told <= second * rate + 1 + 1e-6
            assert told >= (second - 0.01) * rate
        assert told == 2000
        assert second == pytest.approx(1999 / rate, abs=0.01)

    def test_messages_that_are_due_are_sent_together(self, tmp_path: Path) -> None:
        writes = self.sent(tmp_path, 10_000, 2000)
        assert len(writes) < 100
        assert writes[-1][0] == pytest.approx(0.2, abs=0.01)

    def test_the_rate_is_exact_after_a_reader_has_paused(self, tmp_path: Path) -> None:
        writes = self.sent(tmp_path, 10, 500, pauses={100: 20.0})
        assert (
            max(text.count("id: ") for _, text in writes) > 50
        )  # the overdue messages are sent at once
        assert writes[-1][0] == pytest.approx(49.9, abs=0.01)

    def test_a_comment_is_sent_after_a_long_silence(self, tmp_path: Path) -> None:
        writes = self.sent(tmp_path, 0.04, 3)
        seconds = [second for second, _ in writes]
        comments = [second for second, text in writes if text == ": keep-alive\n\n"]
        assert comments == [10, 20, 35, 45]
        assert max(b - a for a, b in pairwise(seconds)) <= KEEP_ALIVE


class TestSettings:
    def test_an_empty_variable_has_its_default(self) -> None:
        assert read(Settings, {"HOSPITAL_PORT": ""}) == Settings()

    @pytest.mark.parametrize(
        ("key", "value"),
        [("REPLAY_RATE", value) for value in ("fast", "-1", "nan", "inf", "1,5")]
        + [("HOSPITAL_PORT", value) for value in ("http", "-1", "65536", "9" * 5000, "8O80")]
        + [("REPLAY_MODE", "foresight"), ("LOG_LEVEL", "LOUD")],
    )
    def test_an_invalid_setting_is_reported_with_its_name(self, key: str, value: str) -> None:
        with pytest.raises(SettingError) as refused:
            read(Settings, {key: value})
        assert key in str(refused.value)
        assert value in str(refused.value)


@contextmanager
def hospital(**environment: str) -> Iterator[subprocess.Popen[str]]:
    """The real program, by default on a free port. It is killed at the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "hospital"],
        cwd=ROOT,
        env={**os.environ, "HOSPITAL_PORT": "0", **environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """Reads the program's log up to the line with `text`; returns that line."""
    assert process.stderr is not None
    log = ""
    for line in process.stderr:
        if text in line:
            return line
        log += line
    raise AssertionError(f"{text!r} is not in:\n{log}")


def address(process: subprocess.Popen[str]) -> str:
    return read_until(process, "listening on").split()[-1]


def open_url(url: str) -> HTTPResponse:
    response: HTTPResponse = urllib.request.urlopen(url, timeout=30)  # noqa: S310
    return response


def write_inputs(folder: Path, readings: int = 5) -> None:
    (folder / "age.csv").write_text(";pat_id;age\n0;7;63.2\n")
    (folder / "admission.csv").write_text(
        ";pat_id;date_admission;date_discharge\n0;7;01/02/2019;03/02/2019\n"
    )
    lines = [f"{n};7;2019-02-02;{n * 24 // readings};spo2;97.0\n" for n in range(readings)]
    (folder / "signal.csv").write_text(";pat_id;day;hour;parameter;value\n" + "".join(lines))


def failure(**environment: str) -> list[str]:
    """The lines, except INFO, that the program logs before it ends with exit code 1."""
    with hospital(**environment) as process:
        _, told = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "Traceback" not in told
        return [line for line in told.splitlines() if " INFO " not in line]


class TestProgram:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_the_program_serves_the_stream_until_it_is_stopped(
        self, tmp_path: Path, number: signal.Signals
    ) -> None:
        write_inputs(tmp_path)
        with hospital(PATIENT_DATA=str(tmp_path), REPLAY_RATE="0.1") as process:
            url = address(process)
            read_until(process, "is ready: 6 messages")
            with open_url(f"{url}/sub") as response:
                assert response.readline().startswith(b"id: ")
                assert json.loads(response.readline()[6:])["pat_id"] == 7
                process.send_signal(number)
                _, told = process.communicate(timeout=30)
            assert process.returncode == 0
            assert "disconnected (messages: 1)" in told
            assert "Traceback" not in told

    def test_the_program_stops_at_once_while_it_prepares_the_stream(self, tmp_path: Path) -> None:
        write_inputs(tmp_path)
        (tmp_path / "signal.csv").unlink()
        os.mkfifo(tmp_path / "signal.csv")  # reading from this pipe blocks forever
        with hospital(PATIENT_DATA=str(tmp_path)) as process:
            url = address(process)
            with pytest.raises(urllib.error.HTTPError, match="503") as refused:
                open_url(f"{url}/health")
            assert json.load(refused.value) == {"status": "preparing"}
            process.send_signal(signal.SIGTERM)
            _, told = process.communicate(timeout=30)
            assert process.returncode == 0
            assert "Traceback" not in told

    def test_invalid_requests_do_not_stop_the_program(self, tmp_path: Path) -> None:
        write_inputs(tmp_path)
        with hospital(PATIENT_DATA=str(tmp_path), REPLAY_RATE="0") as process:
            url = address(process)
            read_until(process, "is ready")
            port = int(url.rpartition(":")[2])
            for garbage in (
                b"",
                b"\x00\xff\r\n\r\n",
                b"GET /sub HTTP/9.9\r\n\r\n",
                b"GET /sub HTTP/1.1\r\nHost: a\r\nLast-Event-ID: \xff\xfe\r\n\r\n",
                b"GET /sub HTTP/1.0\r\n\r\n",
                b"GET /sub HTTP/1.1\r\nHost: a\r\nLast-Event-ID: x-" + b"9" * 5000 + b"\r\n\r\n",
                b"GET /sub HTTP/1.1\r\nHost: a\r\n" + b"X: " + b"y" * 20_000 + b"\r\n\r\n",
            ):
                with socket.create_connection(("127.0.0.1", port)) as client:
                    client.sendall(garbage)
            with open_url(f"{url}/sub") as response:
                assert len(parse(response.read().decode())) == 6
            process.send_signal(signal.SIGTERM)
            _, told = process.communicate(timeout=30)
            assert process.returncode == 0
            assert told.count("WARNING aiohttp.server: malformed request from 127.0.0.1") == 2
            assert "Traceback" not in told

    def test_the_program_takes_less_than_60_mb(self, tmp_path: Path) -> None:
        write_inputs(tmp_path, readings=300_000)
        with hospital(PATIENT_DATA=str(tmp_path), REPLAY_RATE="0") as process:
            url = address(process)
            read_until(process, "is ready")
            with open_url(f"{url}/sub") as response:
                while response.read(1_000_000):
                    pass
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
            assert int(peak.split()[1]) < 60_000  # kB

    def test_without_data_a_synthetic_ward_is_written(self, tmp_path: Path) -> None:
        with hospital(PATIENT_DATA=str(tmp_path), REPLAY_RATE="0") as process:
            url = address(process)
            read_until(process, f"no CSVs in {tmp_path}: writing a synthetic ward to {tmp_path}")
            read_until(process, "is ready")
            with open_url(f"{url}/sub") as response:
                messages = [message for _, message in parse(response.read().decode())]
            assert response.headers["X-Stream"].startswith("synthetic-")
            with open_url(f"{url}/health") as answer:
                health = json.load(answer)
            assert health["synthetic"] is True
            known = Request(f"{url}/sub", headers={"Last-Event-ID": f"{health['stream']}-100"})  # noqa: S310
            with urllib.request.urlopen(known, timeout=30) as rest:  # noqa: S310
                assert parse(rest.read().decode())[0][0] == f"{health['stream']}-101"
        assert len({message["pat_id"] for message in messages}) == 60
        readings = (tmp_path / "signal.csv").read_text().count("\n") - 1
        assert sum(message["type"] == "reading" for message in messages) == readings

    def test_a_synthetic_ward_is_in_derived_data_if_the_data_folder_is_read_only(
        self, tmp_path: Path
    ) -> None:
        nobody_writes_there = "/proc"
        with hospital(PATIENT_DATA=nobody_writes_there, DERIVED_DATA=str(tmp_path)) as process:
            read_until(process, f"writing a synthetic ward to {tmp_path}")
            read_until(process, "is ready")
        written = (tmp_path / "signal.csv").stat()
        with hospital(PATIENT_DATA=nobody_writes_there, DERIVED_DATA=str(tmp_path)) as process:
            read_until(process, "is ready")
        assert (tmp_path / "signal.csv").stat() == written
        assert (tmp_path / "all_data.csv").exists()

    @pytest.mark.parametrize(
        "name", ["Signal.csv", "signal.csv.gz", "vitals.CSV", "export.zip", "ward.xlsx", "a.py"]
    )
    def test_no_synthetic_ward_is_written_beside_other_files(
        self, tmp_path: Path, name: str
    ) -> None:
        (tmp_path / name).write_text("")
        (line,) = failure(PATIENT_DATA=str(tmp_path))
        assert line.startswith(f"hospital: PATIENT_DATA={tmp_path}: ")
        assert name in line
        assert [path.name for path in tmp_path.iterdir()] == [name]

    def test_a_ward_is_synthetic_until_all_three_files_are_replaced(self, tmp_path: Path) -> None:
        write_ward(tmp_path, patients=2, days=1, seed=1)
        for files_left in (2, 1, 0):
            name = ("age.csv", "admission.csv", "signal.csv")[2 - files_left]
            text = (tmp_path / name).read_text()
            (tmp_path / name).write_text(text + "\n")
            prepare(tmp_path, tmp_path, None)
            with Replay(tmp_path, "live") as replay:
                assert replay.synthetic == (files_left > 0)
                assert replay.stream.startswith("synthetic-") == replay.synthetic

    def test_a_missing_csv_is_an_error(self, tmp_path: Path) -> None:
        write_inputs(tmp_path)
        (tmp_path / "age.csv").unlink()
        lines = failure(PATIENT_DATA=str(tmp_path))
        assert len(lines) == 2
        assert str(tmp_path / "age.csv") in lines[0]
        assert lines[1] == "hospital: no stream: hospital.preprocessing failed (exit code 1)"

    def test_a_missing_folder_is_an_error(self, tmp_path: Path) -> None:
        (line,) = failure(PATIENT_DATA=str(tmp_path / "missing"))
        assert line == f"hospital: PATIENT_DATA={tmp_path}/missing: there is no such folder"

    def test_a_folder_that_cannot_be_read_is_an_error(self, tmp_path: Path) -> None:
        # Tests may run as root, who may read every folder.
        folder = tmp_path / ("x" * 300)
        (line,) = failure(PATIENT_DATA=str(folder))
        assert line.startswith(f"hospital: PATIENT_DATA={folder}: cannot read it: ")

    def test_an_invalid_setting_is_an_error(self) -> None:
        (line,) = failure(REPLAY_RATE="fast")
        assert line.startswith("hospital: REPLAY_RATE=fast: ")

    def test_a_port_that_is_taken_is_an_error(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            (line,) = failure(HOSPITAL_PORT=port)
        assert line == (
            f"hospital: HOSPITAL_HOST=127.0.0.1 HOSPITAL_PORT={port}: "
            "the port is taken by another program"
        )

    def test_help_lists_the_settings(self) -> None:
        told = subprocess.run(
            [sys.executable, "-m", "hospital", "--help"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        for key in ("PATIENT_DATA", "DERIVED_DATA", "DATE_FORMAT", "REPLAY_RATE", "REPLAY_MODE"):
            assert f"\n  {key} " in told
        for key in ("HOSPITAL_HOST", "HOSPITAL_PORT", "LOG_LEVEL"):
            assert f"\n  {key} " in told
