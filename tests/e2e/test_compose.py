"""Tests the real stack of docker-compose.yml with MySQL, Redis and nginx."""

import json
import math
import os
import re
import secrets
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cryptography.x509 import BasicConstraints, load_pem_x509_certificate

from embedded.stack import free_port
from tests.support import oracle
from tests.support.servers import require_docker
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
PROJECT = "icu-compose-test"
ONE_SHOTS = {"secrets", "certificate", "migrate"}
PATIENT = {
    "age": 63.2,
    "last_blood_pressure": 118.4,
    "rmean_respiration_rate": 19.5,
    "standard_deviation_temperature": 0.4,
}

# The timeout includes `up`, whose first build installs all requirements.
pytestmark = [pytest.mark.compose, pytest.mark.timeout(1200)]


@dataclass
class Stack:
    """A running compose project."""

    environment: dict[str, str]
    patient_data: Path
    backups: Path

    def compose(self, *arguments: str, check: bool = True) -> str:
        done = subprocess.run(
            ["docker", "compose", "--project-name", PROJECT, *arguments],
            cwd=ROOT,
            env=os.environ | self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0 or not check, f"compose {' '.join(arguments)}:\n{said[-4000:]}"
        return said if done.returncode else done.stdout

    def up(self, *arguments: str) -> None:
        self.compose("up", "--build", "--wait", "--wait-timeout", "600", *arguments)

    def run(self, service: str, *command: str, check: bool = True) -> str:
        """Runs a command in a service's container; returns its output, with stderr if it fails."""
        return self.compose("exec", "-T", service, *command, check=check)

    def python(self, service: str, program: str) -> str:
        return self.run(service, "python", "-c", program).strip()

    def sql(self, statement: str) -> list[list[str]]:
        """Runs a statement with the command of the documentation; returns the rows."""
        said = self.run("tooldb", "mysql", "tooldb", "--skip-column-names", "-e", statement)
        return [line.split("\t") for line in said.splitlines()]

    def backup(self, action: str, folder: Path) -> None:
        subprocess.run(
            [sys.executable, "-m", "backup", action, str(folder), "--stack", "compose"],
            cwd=ROOT,
            env=os.environ | self.environment | {"COMPOSE_PROJECT_NAME": PROJECT},
            check=True,
        )

    def gateway_log(self, statements: str) -> str:
        """Runs statements on the gateway's log while no gateway runs; returns the rows of the last
        one.
        """
        program = f"""
import sqlite3
with sqlite3.connect("/var/lib/gateway/log.sqlite") as log:
    for statement in {statements!r}.split(";"):
        rows = log.execute(statement).fetchall()
print(rows)
"""
        once = ("--rm", "--no-deps", "-T", "--entrypoint", "python")
        return self.compose("run", *once, "gateway", "-c", program).strip()

    def containers(self) -> dict[str, dict[str, Any]]:
        """The result of `docker inspect` for the container of each service, including those that
        run once.
        """
        ids = self.compose("--profile", "*", "ps", "--all", "--quiet").split()
        said = subprocess.check_output(["docker", "inspect", *ids], text=True)
        return {c["Config"]["Labels"]["com.docker.compose.service"]: c for c in json.loads(said)}

    def get(
        self,
        path: str,
        data: bytes | None = None,
        headers: dict[str, str] | None = None,
        port: str = "PORT",
        context: ssl.SSLContext | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        """Sends a request from outside; returns the status, the headers (in lower case) and the
        body.
        """
        scheme = "https" if context else "http"
        request = urllib.request.Request(  # noqa: S310
            f"{scheme}://localhost:{self.environment[port]}{path}", data, headers or {}
        )
        try:
            with urllib.request.urlopen(request, timeout=30, context=context) as answer:  # noqa: S310
                found = answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                found = error.code, error.headers, error.read()
        return found[0], {name.lower(): value for name, value in found[1].items()}, found[2]

    def ask(self, rows: object) -> Any:
        status, _, body = self.get(
            "/api/model", json.dumps(rows).encode(), {"Content-Type": "application/json"}
        )
        assert status == 200, body
        return json.loads(body)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack, with a ward of its own in a folder that the containers cannot write to."""
    require_docker()
    data = tmp_path_factory.mktemp("patient_data")
    ward = ["--patients", "25", "--days", "5", "--seed", "3", "--to", str(data)]
    subprocess.run([sys.executable, "-m", "hospital.synthetic", *ward], cwd=ROOT, check=True)
    data.chmod(0o555)
    environment = {
        "PATIENT_DATA": str(data),
        "REPLAY_RATE": "10",
        "PORT": str(free_port()),
        "TLS_PORT": str(free_port()),
        "ALLOWED_HOSTS": "wall.example.org, ward.example.org",
        # Isolated networks would prevent the oracle from connecting to the database.
        "INTERNAL_GATEWAY": "nat",
    }
    stack = Stack(environment, data, tmp_path_factory.mktemp("backups"))
    stack.compose("--profile", "*", "down", "--volumes", "--remove-orphans")
    try:
        stack.up()
        yield stack
    finally:
        stack.compose("--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "5")


@pytest.fixture(scope="module")
def replayed(stack: Stack) -> Stack:
    """The stack after a backup and a whole replay that was interrupted by `down` and `up`."""

    def stored() -> int:
        return int(stack.sql("SELECT count(*) FROM readings")[0][0])

    messages = oracle.Expected(stack.patient_data, "live").messages
    wait_until(lambda: stored() > 0, "the first readings are stored")
    stack.gateway_log("CREATE TABLE received (id); INSERT INTO received VALUES (1)")
    stack.backup("save", stack.backups)
    assert stored() < messages / 2, "the stream ended before the interruption"
    stack.compose("down")
    stack.environment["REPLAY_RATE"] = "1000"
    stack.up()
    wait_for_the_end(stack)
    return stack


def wait_for_the_end(stack: Stack) -> None:
    messages = oracle.Expected(stack.patient_data, "live").messages
    wait_until(
        lambda: (
            stack.sql("SELECT coalesce(max(seq), 0) FROM positions")[0] == [str(messages)]
            and stack.sql("SELECT count(*) FROM pending")[0] == ["0"]
            and stack.sql("SELECT count(*) FROM positions WHERE vitals_seq < seq")[0] == ["0"]
        ),
        "the replay is at its end",
    )


def check_rows(replayed: Stack) -> None:
    password = replayed.run("tooldb", "cat", "/run/secrets/dashboard/password").strip()
    [network] = replayed.containers()["tooldb"]["NetworkSettings"]["Networks"].values()
    oracle.check(
        replayed.patient_data,
        f"mysql://dashboard:{password}@{network['IPAddress']}/tooldb",
        "live",
    )


def test_every_row_is_stored_once_after_down_and_up(replayed: Stack) -> None:
    check_rows(replayed)


def test_a_backup_restored_into_the_running_stack_gives_all_rows_once(replayed: Stack) -> None:
    [saved] = replayed.backups.iterdir()
    # The backup has no registry, because no model was promoted.
    assert {file.stem for file in saved.glob("*.gz")} == {"tables", "gateway", "login"}
    # Adds a table that the backup does not have, and a row to the gateway's log. No gateway runs.
    replayed.sql("CREATE TABLE newer (id INT)")
    replayed.gateway_log("INSERT INTO received VALUES (2)")
    replayed.backup("restore", saved)
    assert replayed.sql("SHOW TABLES LIKE 'newer'") == []
    assert replayed.gateway_log("SELECT id FROM received") == "[(1,), (2,)]"
    wait_for_the_end(replayed)
    check_rows(replayed)


def test_nginx_serves_metrics_only_to_the_other_services(replayed: Stack) -> None:
    ask = (
        "import urllib.request as r; print(r.urlopen('http://nginx:5080/metrics').read().decode())"
    )
    said = replayed.python("dashboard", ask)
    assert int(re.search(r"^icu_nginx_connections (\d+)$", said, re.MULTILINE)[1]) > 0  # type: ignore[index]
    assert replayed.get("/metrics")[0] == 404


def test_the_dashboard_reaches_every_service(replayed: Stack) -> None:
    def states() -> set[str]:
        content = json.loads(replayed.get("/pipeline.json")[2])
        return {str(content[key]["word"]) for key in content if key.startswith("service:")}

    wait_until(lambda: states() <= {"up", "waiting"}, "every service is up")


def test_stays_are_not_forgotten_while_the_tool_runs(replayed: Stack) -> None:
    forget = ("run", "--rm", "-T", "migrate", "python", "-m", "tool", "forget", "--stream")
    said = replayed.compose(
        *forget, replayed.sql("SELECT stream FROM stays LIMIT 1")[0][0], check=False
    )
    assert "stop the tool first" in said
    check_rows(replayed)


@pytest.mark.parametrize(
    ("service", "counted"),
    [
        ("hospital", "messages sent"),
        ("buffer", "messages received"),
        ("tool", "messages stored"),
        ("modelapi", "rows predicted"),
        ("dashboard", "rounds"),
    ],
)
def test_each_service_logs_a_summary(replayed: Stack, service: str, counted: str) -> None:
    def logged() -> bool:
        said = replayed.compose("logs", "--no-color", service)
        assert "Traceback" not in said
        return bool(re.search(rf"\b\d+ s: [\d,]+ {counted}\b", said))

    wait_until(logged, f"{service} logs its summary")


def test_the_published_port_answers_with_a_prediction(stack: Stack) -> None:
    x = -5 + 0.002 * 63.2 + 0.001 * 118.4 + 0.03 * 19.5 + 0.02 * 0.4
    answer = stack.ask(PATIENT)
    assert answer["probability"] == pytest.approx(1 / (1 + math.exp(-x)), rel=1e-12)
    assert [row["probability"] for row in stack.ask([PATIENT] * 3)] == [answer["probability"]] * 3


@pytest.mark.parametrize(
    ("path", "size", "headers", "status"),
    [
        ("/metrics", None, {}, 404),
        ("/problem", None, {}, 404),
        ("/api/model", 9_000_000, {}, 413),
        (f"/{'a' * 9000}", None, {}, 414),
        ("/", None, {"X-Long": "a" * 9000}, 431),
        ("/", None, {"Host": "localhost.example.org"}, 421),
        ("/health", None, {"Host": "127.0.0.1.example.org"}, 421),
    ],
)
def test_errors_of_nginx_are_problem_documents(
    stack: Stack, path: str, size: int | None, headers: dict[str, str], status: int
) -> None:
    got, answered, body = stack.get(path, size and bytes(size), headers)
    assert got == status
    assert answered["content-type"] == "application/problem+json"
    assert json.loads(body)["status"] == status
    assert answered["server"] == "nginx"
    assert answered["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("host", ["127.0.0.1:5000", "[::1]:5000", "WARD.example.org"])
def test_requests_for_addresses_and_allowed_names_are_answered(stack: Stack, host: str) -> None:
    assert stack.get("/health", headers={"Host": host})[0] == 200
    assert stack.get("/", headers={"Host": host})[0] == 200


def test_without_tokens_models_cannot_be_changed_through_nginx(stack: Stack) -> None:
    for action in ("unload", "load"):
        status, _, body = stack.get(f"/v2/repository/models/news2/{action}", b"")
        assert status == 403, body


def test_the_first_page_is_the_ward_and_has_security_headers(stack: Stack) -> None:
    status, headers, body = stack.get("/")
    assert status == 200
    assert "Ward" in body.decode()
    assert headers["x-frame-options"] == "DENY"
    # This is the header of the dashboard, which is stricter than that of nginx.
    assert "script-src 'self'" in headers["content-security-policy"]
    assert headers["referrer-policy"] == "same-origin"


def test_a_page_tries_again_while_the_dashboard_is_down(stack: Stack) -> None:
    status, headers, services = stack.get("/services")
    assert status == 200
    assert "default-src 'self'" in headers["content-security-policy"]
    for service in stack.containers().keys() - ONE_SHOTS - {"nginx", "tls"}:
        assert f">{service}<" in services.decode(), service
    stack.compose("stop", "dashboard")
    try:
        status, _, body = stack.get("/")
        assert status in (502, 504)
        assert b'http-equiv="refresh"' in body
        assert b'href="/services"' in body
        assert "probability" in stack.ask(PATIENT)
    finally:
        stack.up("dashboard")


ASK_400_TIMES = """
import urllib.request
for _ in range(400):
    urllib.request.urlopen("http://nginx:5080/health").close()
print("never refused")
"""


def test_the_rate_limit_applies_to_clients_outside_but_not_to_the_tool(stack: Stack) -> None:
    answers = [stack.get("/health") for _ in range(400)]
    refused = [answer for answer in answers if answer[0] == 429]
    assert {answer[0] for answer in answers} == {200, 429}
    _, headers, body = refused[0]
    assert headers["content-type"] == "application/problem+json"
    assert headers["retry-after"] == "1"
    assert headers["x-frame-options"] == "DENY"
    assert json.loads(body)["status"] == 429
    assert stack.python("tool", ASK_400_TIMES) == "never refused"


def test_containers_have_only_the_rights_that_they_need(stack: Stack) -> None:
    containers = stack.containers()
    pipeline = {"hospital", "buffer", "redis", "tool", "tooldb", "modelapi", "nginx", "dashboard"}
    assert pipeline <= set(containers)
    for service, container in containers.items():
        host = container["HostConfig"]
        assert host["ReadonlyRootfs"], service
        assert host["CapDrop"] == ["ALL"], service
        assert host["SecurityOpt"] == ["no-new-privileges:true"], service
        assert host["Memory"], service
        assert not host["Privileged"], service
        if service in ONE_SHOTS:
            networks = ("none", f"{PROJECT}_database", f"{PROJECT}_queue")
            assert host["NetworkMode"] in networks, service
            continue
        assert host["CpuQuota"], service
        assert host["PidsLimit"], service
        assert not host["CapAdd"], service
        assert host["RestartPolicy"]["Name"] == "unless-stopped", service
        # These are the effective limits, not the requested ones.
        status = dict(
            line.split(":", 1) for line in stack.run(service, "cat", "/proc/1/status").splitlines()
        )
        assert "0" not in status["Uid"].split(), service
        assert int(status["CapEff"], 16) == 0, service
        assert status["NoNewPrivs"].strip() == "1", service


def test_only_nginx_and_tls_are_published_and_only_on_this_machine(stack: Stack) -> None:
    published = {
        (service, port, binding["HostIp"])
        for service, container in stack.containers().items()
        for port, bindings in (container["NetworkSettings"]["Ports"] or {}).items()
        for binding in bindings or []
    }
    assert published - {("tls", "5443/tcp", "127.0.0.1")} == {("nginx", "5000/tcp", "127.0.0.1")}


CONNECT = """
import socket, sys
for host, port in {targets}:
    try:
        socket.create_connection((host, port), timeout=2).close()
        print(host, end=" ")
    except OSError:
        pass
"""


@pytest.mark.parametrize(
    ("service", "reached"),
    [
        ("hospital", []),
        ("modelapi", ["nginx"]),
        ("buffer", ["hospital", "redis"]),
        ("dashboard", ["hospital", "redis", "tooldb", "nginx", "modelapi"]),
        ("tool", ["redis", "tooldb", "nginx", "modelapi"]),
    ],
)
def test_a_service_reaches_only_its_networks(
    stack: Stack, service: str, reached: list[str]
) -> None:
    ports = {"hospital": 8080, "redis": 6379, "tooldb": 3306, "nginx": 5080, "modelapi": 8000}
    targets = [(host, port) for host, port in ports.items() if host != service]
    said = stack.python(service, CONNECT.format(targets=targets))
    assert sorted(said.split()) == sorted(reached)
    routes = stack.run(service, "cat", "/proc/net/route").splitlines()[1:]
    assert all(route.split()[1] != "00000000" for route in routes), (
        "the container has a default route"
    )


def test_root_needs_no_password_in_the_container_and_cannot_log_in_over_the_network(
    stack: Stack,
) -> None:
    assert stack.sql("SELECT current_user()") == [["root@localhost"]]
    assert stack.sql("SELECT host FROM mysql.user WHERE user = 'root'") == [["localhost"]]
    said = stack.run(
        "tooldb", "mysql", "--host=127.0.0.1", "--protocol=tcp", "-e", "SELECT 1", check=False
    )
    assert "ERROR" in said


@pytest.mark.parametrize(
    ("user", "statement", "allowed"),
    [
        ("tool", "DELETE FROM outbox WHERE 1 = 0", True),
        ("tool", "DELETE FROM pending WHERE 1 = 0", True),
        ("tool", "DELETE FROM rejected WHERE 1 = 0", True),
        ("tool", "UPDATE stays SET age = NULL WHERE 1 = 0", True),
        ("tool", "DELETE FROM readings WHERE 1 = 0", True),
        ("tool", "DELETE FROM stays", False),
        ("tool", "ALTER TABLE pending ADD COLUMN x INTEGER", False),
        ("tool", "DROP TABLE readings", False),
        ("tool", "CREATE TABLE mine (x INTEGER)", False),
        ("tool", "SELECT * FROM mysql.user", False),
        ("tool", "SELECT 1 INTO OUTFILE '/var/lib/mysql-files/x'", False),
        ("migrator", "CREATE TABLE mine (x INTEGER); DROP TABLE mine", True),
        ("migrator", "CREATE DATABASE another", False),
        ("dashboard", "SELECT count(*) FROM predictions", True),
        ("dashboard", "UPDATE stays SET age = 1", False),
        ("dashboard", "INSERT INTO pending VALUES ('s', 1, 'm', '1')", False),
    ],
)
def test_database_users_have_only_the_rights_that_they_use(
    stack: Stack, user: str, statement: str, allowed: bool
) -> None:
    command = (
        f'printf "[client]\\nuser={user}\\npassword=$(cat /run/secrets/{user}/password)\\n" '
        f">/tmp/{user}.cnf; mysql --defaults-file=/tmp/{user}.cnf --host=127.0.0.1 "
        f'--protocol=tcp tooldb -e "{statement}"'
    )
    said = stack.run("tooldb", "sh", "-c", command, check=False)
    if allowed:
        assert "ERROR" not in said
    else:
        assert re.search(r"ERROR (1142|1044|1227)", said), said


def test_the_database_accepts_no_unencrypted_connection(stack: Stack) -> None:
    command = (
        'MYSQL_PWD="$(cat /run/secrets/tool/password)" mysql --user=tool --host=127.0.0.1'
        ' --protocol=tcp --ssl-mode={} tooldb -e "SELECT 1"'
    )
    said = stack.run("tooldb", "sh", "-c", command.format("DISABLED"), check=False)
    assert "ERROR 3159" in said
    said = stack.run("tooldb", "sh", "-c", command.format("REQUIRED"), check=False)
    assert "ERROR" not in said


def test_the_database_is_durable_and_distinguishes_upper_and_lower_case(stack: Stack) -> None:
    assert stack.sql(
        "SELECT @@innodb_flush_log_at_trx_commit, @@collation_database, @@local_infile,"
        " @@time_zone, @@innodb_buffer_pool_size"
    ) == [["1", "utf8mb4_0900_bin", "0", "+00:00", str(512 << 20)]]


def test_redis_writes_to_disk_requires_passwords_and_limits_its_users(stack: Stack) -> None:
    def cli(user: str, password: str, *command: str) -> str:
        return stack.run(
            "redis",
            "sh",
            "-c",
            f'REDISCLI_AUTH="{password}" redis-cli --no-auth-warning '
            f"{f'--user {user}' if user else ''} {' '.join(command)}",
        )

    own = "$(cat /run/secrets/redis/password)"
    assert "NOAUTH" in stack.run("redis", "redis-cli", "get", "icu:position")
    assert "NOAUTH" in cli("default", "guess", "ping")
    kept = cli("", own, "config", "get", "appendonly", "appendfsync", "maxmemory-policy").split()
    setting = dict(zip(kept[::2], kept[1::2], strict=True))
    assert setting["appendonly"] == "yes"
    assert setting["appendfsync"] == "everysec"
    assert setting["maxmemory-policy"] == "noeviction"
    password = stack.run("tooldb", "cat", "/run/secrets/dashboard/password").strip()
    assert "PONG" in cli("dashboard", password, "ping")
    assert "NOPERM" in cli("dashboard", password, "set", "rq:queue:tool-0", "x")
    assert "NOPERM" in cli("dashboard", password, "flushall")
    assert "NOPERM" in cli("dashboard", password, "client", "pause", "1")
    for user, service in (("buffer", "buffer"), ("tool", "tool")):
        password = stack.run(service, "cat", f"/run/secrets/{user}/password").strip()
        assert "PONG" in cli(user, password, "ping")
        for command in (
            *("flushall", "client kill type normal", "config get dir", "get other"),
            *("script flush", "script kill", "function flush", "function list"),
        ):
            assert "NOPERM" in cli(user, password, *command.split()), command
    # Redis has denied only the commands above, and no command of the pipeline.
    denied = {"AUTH", "set", "other", "flushall", "client", "config", "script", "function"}
    log = [line.strip() for line in cli("", own, "acl", "log").splitlines()]
    assert {b.partition("|")[0] for a, b in pairwise(log) if a == "object"} <= denied


def test_no_password_is_in_a_containers_configuration(stack: Stack) -> None:
    passwords = [
        stack.run("redis", "cat", "/run/secrets/redis/password").strip(),
        stack.run("buffer", "cat", "/run/secrets/buffer/password").strip(),
        stack.run("tool", "cat", "/run/secrets/tool/password").strip(),
        stack.run("tooldb", "cat", "/run/secrets/dashboard/password").strip(),
    ]
    assert len(set(passwords)) == 4
    assert all(len(password) == 48 for password in passwords)
    configuration = json.dumps(stack.containers())
    assert not any(password in configuration for password in passwords)


def test_nginx_finds_modelapi_after_its_address_has_changed(stack: Stack) -> None:
    def address() -> str:
        [network] = stack.containers()["modelapi"]["NetworkSettings"]["Networks"].values()
        return str(network["IPAddress"])

    before = address()
    stack.compose("rm", "--stop", "--force", "modelapi")
    status, headers, body = stack.get("/health")
    assert status in (502, 504)
    assert headers["content-type"] == "application/problem+json"
    assert json.loads(body)["status"] == status
    # Meanwhile, another container takes the address of modelapi.
    squatter = subprocess.check_output(
        ["docker", "run", "--rm", "--detach", "--network", f"{PROJECT}_front", "redis:8"],
        text=True,
    ).strip()
    try:
        stack.up("modelapi")
        assert address() != before
        wait_until(lambda: stack.get("/health")[0] == 200, "nginx finds modelapi", 15)
        assert "probability" in stack.ask(PATIENT)
    finally:
        subprocess.run(["docker", "rm", "--force", squatter], capture_output=True, check=True)


def test_the_tls_profile_serves_the_same_site_with_a_certificate(stack: Stack) -> None:
    stack.up("tls")
    port = int(stack.environment["TLS_PORT"])
    certificate = ssl.get_server_certificate(("localhost", port))
    # A browser that trusts this certificate must not trust others that its key has signed.
    basic = load_pem_x509_certificate(certificate.encode()).extensions.get_extension_for_class(
        BasicConstraints
    )
    assert basic.critical
    assert not basic.value.ca
    context = ssl.create_default_context(cadata=certificate)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    status, _, body = stack.get("/health", port="TLS_PORT", context=context)
    assert (status, json.loads(body)["status"]) == (200, "ok")
    named = {"Host": "any.example.org"}
    status, headers, _ = stack.get("/", headers=named, port="TLS_PORT", context=context)
    assert status == 200
    assert headers["x-frame-options"] == "DENY"
    status, headers, _ = stack.get("/", port="TLS_PORT")
    assert status == 400
    assert headers["content-type"] == "application/problem+json"


def test_the_pipeline_runs_if_tokens_are_required(stack: Stack, tmp_path: Path) -> None:
    key, token = tmp_path / "key", tmp_path / "token"
    key.write_text(secrets.token_hex(32))
    command = [sys.executable, "-m", "modelapi", "token", "--key", str(key), "--days", "1"]
    token.write_text(subprocess.check_output(command, cwd=ROOT, text=True))
    for file in (key, token):
        file.chmod(0o600)
    [[asked_before]] = stack.sql("SELECT max(seen_at) FROM models")
    stack.environment |= {"MODEL_TOKEN_KEY": str(key), "MODEL_TOKEN": str(token)}
    stack.up()
    assert stack.get("/health")[0] == 200
    status, headers, body = stack.get("/api/model")
    assert status == 401, body
    assert headers["content-type"] == "application/problem+json"
    bearer = {"Authorization": f"Bearer {token.read_text().strip()}"}
    assert stack.get("/api/model", headers=bearer)[0] == 200
    # After its restart, the tool requests the declaration with its token.
    wait_until(
        lambda: stack.sql("SELECT max(seen_at) FROM models") > [[asked_before]],
        "modelapi accepts the tool's token",
        30,
    )
