"""Tests that deploy/kubernetes is valid for current clusters and agrees with docker-compose.yml."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from embedded.programs import ROOT

KUBERNETES = ROOT / "deploy" / "kubernetes"
VERSIONS = ("1.35", "1.36", "1.37")
OVERLAYS = ["base", *(f"overlays/{path.name}" for path in (KUBERNETES / "overlays").iterdir())]
COMPONENTS = [path.name for path in (KUBERNETES / "components").iterdir()]
# The schemas of these resources belong to operators and are not part of Kubernetes.
CUSTOM = {"ScaledObject", "PodMonitor", "PrometheusRule"}

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
# In a cluster, an Ingress with a log-in, secrets.sh and the cluster's Prometheus replace these
# services.
ELSEWHERE = {"tls", "certificate", "login", "secrets", "prometheus"}
SERVICES = sorted(COMPOSE.keys() - ELSEWHERE)

Resources = dict[tuple[str, str], Any]


def kustomize(folder: Path) -> Resources:
    done = subprocess.run(
        [Path(sys.executable).parent / "kubectl", "kustomize", folder],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found = list(yaml.safe_load_all(done.stdout))
    return {(item["kind"], item["metadata"]["name"]): item for item in found}


@pytest.fixture(scope="module")
def with_component(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Resources]:
    """Renders the base with one component."""

    @cache
    def render(component: str) -> Resources:
        folder = tmp_path_factory.mktemp(component)
        path = os.path.relpath(KUBERNETES, folder.resolve())
        kustomization = {
            "resources": [f"{path}/base"],
            "components": [f"{path}/components/{component}"],
        }
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        return kustomize(folder)

    return render


@pytest.fixture(scope="module")
def resources(with_component: Callable[[str], Resources]) -> Resources:
    """The resources of all services, including the gateway."""
    return with_component("gateway") | kustomize(KUBERNETES / "base")


def validate(resources: Resources) -> None:
    for (kind, _), item in resources.items():
        if kind not in CUSTOM:
            validate_once(json.dumps(item))


@cache
def validate_once(text: str) -> None:
    """Validates a resource for all VERSIONS. The result is cached, because most kustomizations
    share resources, and a check takes 0.1 s.
    """
    for version in VERSIONS:
        kubernetes_validate.validate(json.loads(text), version, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_valid_for_three_versions_of_kubernetes(overlay: str) -> None:
    validate(kustomize(KUBERNETES / overlay))


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_component_is_valid_for_three_versions_of_kubernetes(
    component: str, with_component: Callable[[str], Resources]
) -> None:
    validate(with_component(component))


def workload(resources: Resources, service: str) -> Any:
    [found] = [
        item
        for (kind, name), item in resources.items()
        if name == service and kind in ("Deployment", "StatefulSet", "Job")
    ]
    return found


def pod_of(resources: Resources, service: str) -> Any:
    return workload(resources, service)["spec"]["template"]["spec"]


def container_of(resources: Resources, service: str) -> Any:
    [container] = pod_of(resources, service)["containers"]
    return container


def by_default(value: str) -> str:
    """The value that compose uses if no variable is set."""
    return re.sub(r"\$\{\w+(?::?([-+])([^}]*))?\}", lambda m: m[2] if m[1] == "-" else "", value)


def bytes_of(size: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([a-zA-Z]+)", size).groups()  # type: ignore[union-attr]
    return int(number) << {"m": 20, "mi": 20, "g": 30, "gi": 30}[unit.lower()]


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_the_settings_of_compose(service: str, resources: Resources) -> None:
    container = container_of(resources, service)
    given = {item["name"]: item["value"] for item in container.get("env", [])}
    expected = {
        key: text
        for key, value in COMPOSE[service].get("environment", {}).items()
        if (text := by_default(value or ""))
    }
    if service == "modelapi":
        del (
            given["MODEL_STATE_URL"],
            given["MODEL_STATE_PASSWORD_FILE"],
        )  # several replicas share it
    if service == "dashboard":
        del expected["LOGIN_URL"]  # people log in at the Ingress
    assert given == expected
    assert container.get("args") == COMPOSE[service].get("command")
    [settings] = container["envFrom"]
    assert settings["configMapRef"]["name"].startswith("settings-")
    # With service links, Kubernetes would set HOSPITAL_PORT and others to the addresses of
    # Services.
    assert pod_of(resources, service)["enableServiceLinks"] is False


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_the_volumes_and_secrets_of_compose(
    service: str, resources: Resources
) -> None:
    volumes = {item["name"]: item for item in pod_of(resources, service).get("volumes", [])}
    mounts = {item["mountPath"]: item for item in container_of(resources, service)["volumeMounts"]}
    expected = {path.split(":")[0] for path in COMPOSE[service].get("tmpfs", [])}
    for volume in COMPOSE[service].get("volumes", []):
        source, target = (
            volume.split(":")[:2]
            if isinstance(volume, str)
            else (volume["source"], volume["target"])
        )
        expected.add(target)
        if source.startswith("secret-"):
            secret = volumes[mounts[target]["name"]]["secret"]
            assert secret["secretName"] == source.removeprefix("secret-")
            assert secret["defaultMode"] == 0o440
            assert mounts[target]["readOnly"]
    if service == "modelapi":
        # The models are in the image, and their state is in a table.
        expected -= {"/app/models", "/var/lib/modelapi"}
        expected |= {"/run/secrets/modelapi"}
    if service == "tooldb":
        expected |= {"/run/secrets/modelapi"}
    assert mounts.keys() == expected


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_the_limits_of_compose(service: str, resources: Resources) -> None:
    limits = container_of(resources, service)["resources"]["limits"]
    assert bytes_of(limits["memory"]) == bytes_of(COMPOSE[service]["mem_limit"])
    assert int(limits["cpu"]) * 100_000 == COMPOSE[service]["cpu_quota"]
    grace = int(COMPOSE[service].get("stop_grace_period", "30s").rstrip("s"))
    pod = pod_of(resources, service)
    assert pod.get("terminationGracePeriodSeconds", 30) == grace
    probes = container_of(resources, service).keys() & {"readinessProbe"}
    assert bool(probes) != COMPOSE[service]["healthcheck"].get("disable", False)


def dockerfile_user(service: str) -> str:
    build = COMPOSE[service]["build"]
    path = (
        ROOT / build / "Dockerfile" if isinstance(build, str) else ROOT / str(build["dockerfile"])
    )
    found = re.findall(r"^USER (.*)$", path.read_text(), re.MULTILINE)
    return str(found[-1])


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_as_confined_as_in_compose(service: str, resources: Resources) -> None:
    pod, container = pod_of(resources, service), container_of(resources, service)
    user = pod["securityContext"]["runAsUser"]
    assert user > 0
    if "build" in COMPOSE[service]:
        assert str(user) == dockerfile_user(service)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    sysctls = {item["name"]: item["value"] for item in pod["securityContext"].get("sysctls", [])}
    expected = COMPOSE[service].get("sysctls", {})
    assert sysctls == {name: str(value) for name, value in expected.items()}


def test_the_job_forget_equals_migrate_except_for_its_command() -> None:
    """`forget` needs the database user, the settings and the network of `migrate`."""
    jobs = kustomize(KUBERNETES / "overlays/example-hospital-forget")
    migrate = workload(kustomize(KUBERNETES / "overlays/example-hospital"), "migrate")
    forget = workload(jobs, "forget")
    assert forget["metadata"].pop("labels") == migrate["metadata"].pop("labels") | {
        "task": "forget"
    }
    forget["metadata"]["name"] = "migrate"
    [container] = forget["spec"]["template"]["spec"]["containers"]
    assert container.pop("args") == ["python", "-m", "tool", "forget", "--expired"]
    del container_of({("Job", "migrate"): migrate}, "migrate")["args"]
    assert forget == migrate


def test_a_replica_runs_as_tooldb_on_another_node(
    with_component: Callable[[str], Resources],
) -> None:
    resources = with_component("replica")
    pod, expected = pod_of(resources, "tooldb-replica"), pod_of(resources, "tooldb")
    [rule] = pod.pop("affinity")["podAntiAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]
    assert rule["topologyKey"] == "kubernetes.io/hostname"
    assert rule["labelSelector"] == workload(resources, "tooldb")["spec"]["selector"]
    assert pod == expected
    labels = [
        workload(resources, name)["spec"]["selector"]["matchLabels"]
        for name in ("tooldb", "tooldb-replica")
    ]
    # Before its promotion, no client reaches the replica through the Service.
    assert resources["Service", "tooldb"]["spec"]["selector"] == labels[0] != labels[1]


def test_every_service_admits_its_clients(resources: Resources) -> None:
    """Checks that each address in a setting is a Service, and that the policy of this Service
    admits the client.
    """
    policies = {name: item["spec"] for (kind, name), item in resources.items() if kind == POLICY}
    everything = {"matchLabels": {"app.kubernetes.io/part-of": "icu-stream"}}
    assert policies["cell"]["podSelector"] == everything
    assert policies["cell"]["policyTypes"] == ["Ingress", "Egress"]
    checked = set()
    for service in SERVICES:
        labels = workload(resources, service)["spec"]["template"]["metadata"]["labels"]
        assert labels["app.kubernetes.io/part-of"] == "icu-stream"
        for item in container_of(resources, service).get("env", []):
            address = re.match(r"\w+://(?:\w+@)?(\w+):(\d+)", item["value"])
            if address is None:
                continue
            server, port = address[1], int(address[2])
            ports = resources["Service", server]["spec"]["ports"]
            assert port in [each["port"] for each in ports]
            assert lets_in(policies[server], service, port), (service, server)
            checked.add((service, server))
    assert {("tool", "redis"), ("tool", "tooldb"), ("modelapi", "tooldb")} <= checked


POLICY = "NetworkPolicy"


def lets_in(policy: Any, client: str, port: int) -> bool:
    label = {"matchLabels": {"app.kubernetes.io/name": client}}
    return any(
        {"podSelector": label} in rule.get("from", []) and {"port": port} in rule["ports"]
        for rule in policy["ingress"]
    )


def test_redis_users_have_the_rights_of_compose(tmp_path: Path) -> None:
    script = COMPOSE["secrets"]["command"][0].replace("$$", "$")
    script = script.replace("cd /secrets", f"cd {tmp_path}").replace("/own/", "/dev/null #")
    for user in ("redis", "redis-acl", "buffer", "migrator", "tool", "dashboard"):
        (tmp_path / user).mkdir()
    for name in ("model-key", "model-token", "webhook-token"):
        (tmp_path / name).mkdir()
    subprocess.run(["sh", "-euc", script], check=True, timeout=30)
    compose = (tmp_path / "redis-acl" / "users.acl").read_text()
    done = subprocess.run(
        [KUBERNETES / "secrets.sh"], check=True, capture_output=True, text=True, timeout=30
    )
    secrets = {item["metadata"]["name"]: item["stringData"] for item in documents(done.stdout)}
    passwords = [secret["password"] for secret in secrets.values() if "password" in secret]
    assert len(set(passwords)) == len(passwords) >= 5
    assert all(re.fullmatch("[0-9a-f]{48}", password) for password in passwords)
    assert without_hashes(secrets["redis-acl"]["users.acl"]) == without_hashes(compose)


def documents(text: str) -> list[Any]:
    return list(yaml.safe_load_all(text))


def without_hashes(acl: str) -> list[str]:
    return [re.sub("#[0-9a-f]{64}", "#", " ".join(line.split())) for line in acl.splitlines()]


def test_keda_starts_at_most_one_tool_for_each_partition(
    with_component: Callable[[str], Resources],
) -> None:
    resources = with_component("keda")
    [settings] = [item["data"] for (kind, _), item in resources.items() if kind == "ConfigMap"]
    scaled = resources["ScaledObject", "tool"]["spec"]
    tool = resources["Deployment", scaled["scaleTargetRef"]["name"]]
    assert "replicas" not in tool["spec"]  # otherwise each `kubectl apply` would scale the tools
    assert scaled["maxReplicaCount"] == int(settings["PARTITIONS"])


def test_keda_reads_the_waiting_messages_of_the_overlays_namespace(tmp_path: Path) -> None:
    path = os.path.relpath(KUBERNETES, tmp_path.resolve())
    example = yaml.safe_load(
        (KUBERNETES / "overlays/example-hospital/kustomization.yaml").read_text()
    )
    kustomization = {
        "namespace": "ward-7",
        "resources": [f"{path}/base"],
        "components": [f"{path}/components/keda"],
        "replacements": example["replacements"],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    [trigger] = kustomize(tmp_path)["ScaledObject", "tool"]["spec"]["triggers"]
    query = 'max(icu_buffer_waiting_messages{namespace="ward-7"})'
    assert trigger["metadata"]["query"] == query


def test_the_prometheus_operator_gets_all_rules_and_alerts() -> None:
    done = subprocess.run(
        [KUBERNETES / "components/prometheus-operator/rules.sh"],
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    )
    groups = [group for item in documents(done.stdout) for group in item["spec"]["groups"]]
    expected = [
        group
        for name in ("rules.yml", "alerts.yml")
        for group in yaml.safe_load((ROOT / "prometheus" / name).read_text())["groups"]
    ]
    assert groups == expected


def test_the_monitors_reach_all_services_that_prometheus_watches_in_compose(
    with_component: Callable[[str], Resources],
) -> None:
    resources = with_component("prometheus-operator") | with_component("gateway")
    monitored = set()
    for (kind, _), item in resources.items():
        if kind != "PodMonitor":
            continue
        [names] = [rule["values"] for rule in item["spec"]["selector"]["matchExpressions"]]
        [endpoint] = item["spec"]["podMetricsEndpoints"]
        for name in names:
            ports = container_of(resources, name)["ports"]
            [port] = [each for each in ports if each["name"] == endpoint["port"]]
            [admitted] = resources[POLICY, "metrics"]["spec"]["ingress"]
            assert {"port": port["containerPort"]} in admitted["ports"]
            monitored.add(name)
    compose = yaml.safe_load((ROOT / "prometheus" / "prometheus.yml").read_text())
    jobs = {job["job_name"] for job in compose["scrape_configs"]}
    assert monitored == jobs - ELSEWHERE
