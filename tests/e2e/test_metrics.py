"""Tests metrics, rules, alerts and logs, with the real promtool and the real Prometheus."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from prometheus_client import generate_latest

import login.metrics  # noqa: F401 - registers its metrics
from embedded.programs import ROOT
from embedded.stack import free_port
from gateway.metrics import exposition
from tests.support.pipeline import Pipeline, synthetic
from tests.support.servers import missing
from tests.unit.test_links import anchors

IMAGE = "prom/prometheus:v3.5.3"
SERVICES = {
    "hospital": "HOSPITAL_PORT",
    "buffer": "BUFFER_METRICS_PORT",
    "tool": "TOOL_METRICS_PORT",
    "modelapi": "MODELAPI_PORT",
    "dashboard": "DASHBOARD_PORT",
}
# The programs that every replay starts; the dashboard is started separately.
ALWAYS = [name for name in SERVICES if name != "dashboard"]

pytestmark = pytest.mark.timeout(200)


def program(name: str, *mounts: Path) -> list[str]:
    """The command for promtool or prometheus: the one on PATH or, if there is none, that of the
    image.
    """
    if found := shutil.which(name):
        return [found]
    image = ["docker", "image", "inspect", IMAGE]
    if shutil.which("docker") and subprocess.run(image, capture_output=True).returncode == 0:
        volumes = [part for path in (ROOT, *mounts) for part in ("--volume", f"{path}:{path}:ro")]
        run = ["docker", "run", "--rm", "--interactive", "--network", "host", *volumes]
        return [*run, "--workdir", str(ROOT), "--entrypoint", name, IMAGE]
    reason = f"no {name} on PATH, and no image {IMAGE}"
    missing(reason)


def promtool(*arguments: str, given: str = "") -> None:
    done = subprocess.run(
        [*program("promtool"), *arguments],
        cwd=ROOT,
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def status_for_a_stranger(pipeline: Pipeline, service: str) -> int:
    """The status of /metrics for a host name that is not the name of the service."""
    url = f"http://127.0.0.1:{pipeline.environ[SERVICES[service]]}/metrics"
    request = urllib.request.Request(url, headers={"Host": "example.org"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def metrics(pipeline: Pipeline, service: str) -> str:
    """The text of a service's /metrics; empty if the service does not answer."""
    url = f"http://127.0.0.1:{pipeline.environ[SERVICES[service]]}/metrics"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def total(text: str, name: str, labels: str = "") -> float:
    """The sum of a metric over the series that have `labels`."""
    found = re.findall(rf"^{name}(?:\{{([^}}]*)\}})? (\S+)$", text, re.MULTILINE)
    return sum(float(value) for said, value in found if labels in said)


def test_promtool_accepts_configuration_and_rules() -> None:
    promtool("check", "config", "prometheus/prometheus.yml")


def test_each_alert_fires_only_in_its_condition() -> None:
    promtool("test", "rules", "tests/support/alerts_test.yml")


def alerts() -> dict[str, Any]:
    groups = yaml.safe_load((ROOT / "prometheus/alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def test_each_alert_has_a_test_and_a_runbook() -> None:
    tested = (ROOT / "tests/support/alerts_test.yml").read_text()
    for name, rule in alerts().items():
        assert re.search(rf"alertname: {name}\n +exp_alerts:\n", tested), f"{name} is never fired"
        document, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert anchor == name.lower()
        assert anchor in anchors(ROOT / document), f"{name} has no heading in {document}"


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The CSVs of twelve patients for three days, with one impossible value in the first hour."""
    folder = tmp_path_factory.mktemp("ward")
    synthetic(folder, "--patients", "12", "--days", "3", "--seed", "1")
    signal = folder / "signal.csv"
    lines = signal.read_text().splitlines()
    lines.insert(1, ";".join([*lines[1].split(";")[:4], "temperature", "378.0"]))
    signal.write_text("\n".join(lines) + "\n")
    return folder


def status(pipeline: Pipeline) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "dashboard.terminal"],
        cwd=ROOT,
        env=pipeline.environ,
        capture_output=True,
        text=True,
        timeout=30,
    )


class Replay:
    """The logs and the metrics after a replay of the ward. Starts a dashboard to get its metrics
    and the output of `status`.
    """

    def __init__(self, pipeline: Pipeline, texts: dict[str, str]) -> None:
        self.metrics = texts
        self.messages = pipeline.health()["messages"]
        self.stream = pipeline.health()["stream"]
        self.unavailable = status(pipeline)
        self.strangers = {name: status_for_a_stranger(pipeline, name) for name in ALWAYS}
        self.status = ""
        pipeline.start("dashboard")
        try:
            pipeline.wait(lambda: "End of stream" in self.ask(pipeline))
            self.metrics["dashboard"] = metrics(pipeline, "dashboard")
        finally:
            pipeline.stop("dashboard")
        self.logs: dict[str, str] = {}

    def ask(self, pipeline: Pipeline) -> str:
        self.status = status(pipeline).stdout
        return self.status


@pytest.fixture(scope="module")
def replay(ward: Path, tmp_path_factory: pytest.TempPathFactory) -> Replay:
    folder = tmp_path_factory.mktemp("replay")
    settings = {"LOG_FORMAT": "json", "LOG_LEVEL": "DEBUG", "MODELAPI_WORKERS": "2"}
    with Pipeline(folder, ward, **settings) as pipeline:
        pipeline.wait(pipeline.done, 100)
        pipeline.wait(lambda: total(metrics(pipeline, "buffer"), "icu_buffer_stream_ended") == 1)
        texts: dict[str, str] = {}

        def champion_is_reported() -> bool:
            # A worker may answer while it still loads its model.
            texts.update({service: metrics(pipeline, service) for service in ALWAYS})
            return "icu_modelapi_champion_info{" in texts["modelapi"]

        pipeline.wait(champion_is_reported)
        found = Replay(pipeline, texts)
    found.logs = {name: pipeline.log(name) for name in SERVICES}
    return found


def test_metric_names_follow_the_conventions(replay: Replay) -> None:
    for service, text in replay.metrics.items():
        ours = [line for line in text.splitlines() if re.match(rf"(# \w+ )?icu_{service}_", line)]
        assert len(ours) > 10, f"{service}: {text}"
        promtool("check", "metrics", given="\n".join(ours) + "\n")


def test_each_message_is_counted_once_by_every_service(replay: Replay) -> None:
    hospital, buffer, tool, modelapi, _ = replay.metrics.values()
    n = replay.messages
    assert total(hospital, "icu_hospital_stream_messages") == n
    assert total(hospital, "icu_hospital_messages_sent_total") == n
    assert total(buffer, "icu_buffer_messages_received_total") == n
    assert total(buffer, "icu_buffer_batch_messages_sum") == n
    assert total(buffer, "icu_buffer_waiting_messages") == 0
    assert total(tool, "icu_tool_messages_total") == n
    assert total(tool, "icu_tool_batch_messages_sum") == n
    assert total(tool, "icu_tool_rejected_total", 'code="implausible"') == 1
    assert total(tool, "icu_tool_rejected_total") == 1
    # The other messages are discharges.
    assert n * 0.9 < total(tool, "icu_tool_readings_total") < n
    predicted = total(tool, "icu_tool_predictions_total")
    # If a batch finds the database busy, it requests its predictions again.
    assert 0 < predicted <= total(modelapi, "icu_modelapi_rows_total")
    assert total(modelapi, "icu_modelapi_champion_info") == 1


def test_the_lag_is_zero_when_all_messages_are_stored(replay: Replay) -> None:
    for part in ("0", "1"):
        label = f'partition="{part}"'
        read = total(replay.metrics["buffer"], "icu_buffer_stream_timestamp_seconds", label)
        stored = total(replay.metrics["tool"], "icu_tool_stream_timestamp_seconds", label)
        assert read == stored > 0


def test_metrics_are_not_served_for_other_host_names(replay: Replay) -> None:
    assert replay.strangers == dict.fromkeys(ALWAYS, 421)


def test_rules_alerts_and_dashboard_query_existing_metrics(replay: Replay) -> None:
    there = set(re.findall(r"^(icu_\w+)", "\n".join(replay.metrics.values()), re.MULTILINE))
    gateway = exposition(ROOT / "log", 0).decode()
    # This process imports login, so its own metrics include those of login.
    for text in (gateway, generate_latest().decode()):
        there |= set(re.findall(r"^# HELP (icu_\w+)", text, re.MULTILINE))
    rules = (ROOT / "prometheus/rules.yml").read_text()
    there |= set(re.findall(r"record: (\S+)", rules))
    asked = [rules, (ROOT / "prometheus/alerts.yml").read_text()]
    board = json.loads((ROOT / "prometheus/grafana.json").read_text())
    asked += [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    names = set(re.findall(r"icu[_:][\w:]+", "\n".join(asked)))
    assert len(names) > 20
    assert names <= there, names - there


def test_no_metric_names_a_patient_or_a_stream(replay: Replay) -> None:
    labels = set(re.findall(r'(\w+)="', "\n".join(replay.metrics.values())))
    allowed = {"partition", "code", "kind", "when", "peer", "le", "file", "route", "status"}
    allowed |= {"model", "version", "generation", "implementation", "major", "minor", "patchlevel"}
    assert labels <= allowed


def objects(log: str) -> list[dict[str, Any]]:
    """The lines of a log. Each must be a JSON object."""
    found = [json.loads(line) for line in log.splitlines()]
    assert all(isinstance(line, dict) for line in found)
    return found


@pytest.mark.parametrize("service", SERVICES)
def test_each_line_of_a_json_log_is_an_object(replay: Replay, service: str) -> None:
    lines = objects(replay.logs[service])
    assert lines
    for line in lines:
        assert line.keys() >= {"time", "level", "service", "logger", "message"}
        assert line["service"] == service


def test_one_id_follows_a_message_from_hospital_to_the_tool(replay: Replay) -> None:
    lines = {service: objects(log) for service, log in replay.logs.items()}
    message = f"{replay.stream}-{replay.messages // 2}"
    of_message = {
        service: [line for line in lines[service] if line.get("message_id") == message]
        for service in ("hospital", "buffer", "tool")
    }
    assert all(of_message.values()), of_message
    batch = of_message["buffer"][0]["batch_id"]
    stored = [line for line in lines["tool"] if line.get("batch_id") == batch]
    assert [line["level"] for line in stored] == ["DEBUG"]


@pytest.mark.parametrize(
    ("service", "counted"),
    [
        ("hospital", "messages sent"),
        ("buffer", "messages received"),
        ("tool", "messages stored"),
    ],
)
def test_the_summaries_of_a_service_count_each_message_once(
    replay: Replay, service: str, counted: str
) -> None:
    lines = [line for line in objects(replay.logs[service]) if line["level"] == "INFO"]
    counts = [re.search(rf"([\d,]+) {counted}", line["message"]) for line in lines]
    assert sum(int(found[1].replace(",", "")) for found in counts if found) == replay.messages


def test_the_summaries_of_the_model_api_count_no_row_twice(replay: Replay) -> None:
    lines = objects(replay.logs["modelapi"])
    counts = [re.search(r"([\d,]+) rows predicted", line["message"]) for line in lines]
    rows = sum(int(found[1].replace(",", "")) for found in counts if found)
    assert 0 < rows <= total(replay.metrics["modelapi"], "icu_modelapi_rows_total")


def test_no_patient_is_in_the_logs_above_debug(replay: Replay, ward: Path) -> None:
    patients = {line.split(";")[1] for line in (ward / "age.csv").read_text().splitlines()[1:]}
    for log in replay.logs.values():
        for line in objects(log):
            if line["level"] != "DEBUG":
                words = set(re.findall(r"\w+", line["message"]))
                assert not words & patients, line


def test_status_shows_the_figures_of_the_pipeline_page_in_the_terminal(replay: Replay) -> None:
    shown = replay.status.replace("\N{NO-BREAK SPACE}", "")
    assert re.search(rf"^  stored +{replay.messages} messages$", shown, re.MULTILINE), shown
    assert re.search(r"^  rejected +1 messages$", shown, re.MULTILINE), shown
    assert re.search(
        r"^    temperature 378\.0 is not between 26 \(excluded\) and 45 °C +1$", shown, re.MULTILINE
    )
    for name in ("hospital", "redis", "database", "modelapi"):
        assert re.search(rf"^  {name} +up ", shown, re.MULTILINE), shown


def test_status_reports_an_unavailable_dashboard_in_one_line(replay: Replay) -> None:
    assert replay.unavailable.returncode == 1
    assert replay.unavailable.stdout == ""
    assert re.fullmatch(r"status: http://\S+ does not answer: .+\n", replay.unavailable.stderr)


def test_counts_survive_the_end_of_a_process(ward: Path, tmp_path: Path) -> None:
    with Pipeline(tmp_path, ward, MODELAPI_WORKERS="2") as pipeline:
        pipeline.wait(pipeline.done)
        n = pipeline.health()["messages"]
        pipeline.wait(lambda: total(metrics(pipeline, "tool"), "icu_tool_messages_total") == n)
        rows = total(metrics(pipeline, "modelapi"), "icu_modelapi_rows_total")
        assert rows > 0

        workers = [
            pid
            for pid in pipeline.pids("tool")
            if b"multiprocessing.spawn" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        assert len(workers) == 3
        for pid in (*workers, pipeline.pids("modelapi")[1]):
            os.kill(pid, signal.SIGKILL)

        pipeline.wait(lambda: total(metrics(pipeline, "tool"), "icu_tool_restarts_total") == 3)
        assert total(metrics(pipeline, "tool"), "icu_tool_messages_total") == n
        ended = "icu_modelapi_workers_ended_total"
        pipeline.wait(lambda: total(metrics(pipeline, "modelapi"), ended) == 1)
        # Other calls, such as those of the background process, may add to the count.
        assert total(metrics(pipeline, "modelapi"), "icu_modelapi_rows_total") >= rows


def test_a_restarted_model_api_does_not_repeat_earlier_counts(ward: Path, tmp_path: Path) -> None:
    folder = tmp_path / "counts"
    folder.mkdir()
    pipeline = Pipeline(tmp_path, ward, PROMETHEUS_MULTIPROC_DIR=str(folder))
    count = "from modelapi.metrics import ROWS; ROWS.labels('formula', '1').inc(7)"
    subprocess.run([sys.executable, "-c", count], cwd=ROOT, env=pipeline.environ, check=True)
    assert list(folder.glob("counter_*.db"))
    pipeline.start("modelapi")
    try:
        pipeline.wait(lambda: "icu_modelapi_champion_info{" in metrics(pipeline, "modelapi"))
        assert total(metrics(pipeline, "modelapi"), "icu_modelapi_rows_total") == 0
    finally:
        pipeline.stop("modelapi")


@contextmanager
def prometheus(pipeline: Pipeline) -> Iterator[Callable[[str], set[str]]]:
    """Runs the real Prometheus with the rules of this repository, with windows of 8 s
    and delays of 2 s.

    Yields a function that runs a query and returns the values of one label in its result.
    """
    folder = pipeline.folder / "prometheus"
    folder.mkdir()
    port = free_port()
    config = yaml.safe_load((ROOT / "prometheus/prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    jobs = config["scrape_configs"]
    # This pipeline has neither a gateway nor a login service.
    config["scrape_configs"] = [job for job in jobs if job["job_name"] in SERVICES]
    for job in config["scrape_configs"]:
        target = f"127.0.0.1:{pipeline.environ[SERVICES[job['job_name']]]}"
        job["static_configs"] = [{"targets": [target]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    for name in config["rule_files"]:
        text = (ROOT / "prometheus" / name).read_text()
        text = re.sub(r"\[\d+[mh]\]", "[8s]", text)
        text = re.sub(r"for: \d+m", "for: 2s", text)
        (folder / name).write_text(text)
    folder.chmod(0o755)
    container = f"icu-metrics-test-{uuid.uuid4().hex[:8]}"
    command = program("prometheus", folder)
    in_container = "--rm" in command
    data = "/prometheus"
    if in_container:
        command[2:2] = ["--name", container]
    else:
        data = str(folder / "data")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *command,
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={data}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )

    def values(query: str, label: str = "alertname") -> set[str]:
        url = f"http://127.0.0.1:{port}/api/v1/query?query={quote(query)}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                found = json.load(answer)["data"]["result"]
        except OSError:
            return set()
        return {sample["metric"].get(label, "") for sample in found}

    try:
        yield values
    finally:
        if in_container:
            subprocess.run(["docker", "rm", "--force", container], capture_output=True, timeout=30)
        process.terminate()
        process.wait(20)


@contextmanager
def started(pipeline: Pipeline, name: str) -> Iterator[None]:
    """Runs a program that a replay does not start."""
    pipeline.start(name)
    try:
        yield
    finally:
        pipeline.stop(name)


def test_faults_of_the_pipeline_raise_their_alerts(tmp_path: Path) -> None:
    """A stopped model, a stopped tool and rejected messages each raise their alert."""
    ward = synthetic(tmp_path, "--patients", "12", "--days", "6", "--seed", "2")
    signal = ward / "signal.csv"
    head, *rows = signal.read_text().splitlines()
    # The first messages are valid; every third of the later ones is implausible.
    for index in range(600, len(rows), 3):
        rows[index] = ";".join([*rows[index].split(";")[:4], "temperature", "378.0"])
    signal.write_text("\n".join([head, *rows]) + "\n")
    firing = 'ALERTS{alertstate="firing"}'
    with (
        Pipeline(tmp_path, ward, REPLAY_RATE="40") as pipeline,
        started(pipeline, "dashboard"),
        prometheus(pipeline) as ask,
    ):
        pipeline.wait(lambda: ask("up == 1", "job") == set(SERVICES))
        pipeline.wait(lambda: "" in ask("icu:messages_stored:rate1m > 0"))
        pipeline.wait(lambda: not ask(firing))

        pipeline.stop("modelapi")
        pipeline.wait(lambda: {"ModelDown", "PredictionsWaiting"} <= ask(firing))
        assert "NoProgress" not in ask(firing)

        pipeline.stop("tool")
        pipeline.wait(lambda: {"NoProgress", "ServiceDown"} <= ask(firing))
        pipeline.start("tool")
        pipeline.wait(lambda: "NoProgress" not in ask(firing))

        pipeline.wait(lambda: "RejectedShare" in ask(firing))
