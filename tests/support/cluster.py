"""The pipeline on a cluster of three nodes. Each node is a container that can be killed.

CLUSTER names a program that creates and controls the cluster, with the commands `up`, `push IMAGE…`
and `node N`. A `kubectl` for the cluster is in the folder of the program.
"""

import base64
import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import pytest
from redis.exceptions import RedisError

from embedded.stack import ROOT
from tests.support.oracle import at_rest
from wire import keys

NAMESPACE = "icu-test"
PARTITIONS = 4
# The node with the database and the CSVs. No test kills it; see tests/support/kubernetes.
FIRST = "k1"
ADDRESS = "10.78.0.11"
SERVICES = ("tool", "buffer", "hospital", "dashboard", "nginx", "modelapi")


def run(*command: str | Path, given: str | None = None, timeout: float = 300) -> str:
    done = subprocess.run(
        command, cwd=ROOT, input=given, capture_output=True, text=True, timeout=timeout
    )
    if done.returncode:
        pytest.fail(f"{command}: {done.stderr or done.stdout}")
    return done.stdout


class Cluster:
    """One cell in a namespace of its own, which is deleted at the end."""

    def __init__(self, program: Path, patient_data: Path) -> None:
        self._program = program
        self._patient_data = patient_data

    def __enter__(self) -> Self:
        run(self._program, "up", timeout=580)
        self._push_images()
        self._delete()
        self._copy_data()
        run(self._kubectl, "create", "namespace", NAMESPACE)
        self.kubectl("create", "-f", "-", given=run(ROOT / "deploy/kubernetes/secrets.sh"))
        overlay = ROOT / "tests/support/kubernetes"
        manifests = run(Path(sys.executable).parent / "kubectl", "kustomize", overlay)
        self.kubectl("apply", "-f", "-", given=manifests)
        return self

    def __exit__(self, *_: object) -> None:
        self._delete()

    def kubectl(self, *arguments: str, given: str | None = None) -> str:
        return run(self._kubectl, "-n", NAMESPACE, *arguments, given=given)

    def succeeds(self, *arguments: str) -> bool:
        """Whether a kubectl command succeeds; it may fail while a node is down."""
        command = (self._kubectl, "-n", NAMESPACE, *arguments)
        return subprocess.run(command, capture_output=True, timeout=300).returncode == 0

    @property
    def _kubectl(self) -> Path:
        return self._program.parent / "kubectl"

    def _push_images(self) -> None:
        for service in SERVICES:
            image = ("-t", f"icu-stream/{service}", "-f", f"{service}/Dockerfile")
            run("docker", "build", "-q", *image, ".", timeout=580)
        run("docker", "build", "-q", "-t", "icu-stream/tooldb", "tooldb", timeout=580)
        images = [f"icu-stream/{service}" for service in (*SERVICES, "tooldb")]
        run(self._program, "push", "redis:8", *images, timeout=580)

    def _delete(self) -> None:
        run(self._kubectl, "delete", "namespace", NAMESPACE, "--ignore-not-found")

    def _copy_data(self) -> None:
        node = f"icu-{FIRST}"
        prepare = "rm -rf /data && mkdir -p /data/tooldb && chown 999 /data/tooldb"
        run("docker", "exec", node, "sh", "-c", prepare)
        run("docker", "cp", self._patient_data, f"{node}:/data/patient_data")
        run("docker", "exec", node, "chmod", "-R", "a+rX", "/data/patient_data")

    def kill_node(self, node: str) -> None:
        """Kills a node as a power failure would."""
        run("docker", "kill", f"icu-{node}")

    def start_node(self, node: str) -> None:
        command = (self._program, "node", node.removeprefix("k"))
        # After a power failure, the node's container engine may find its stale pid file and exit.
        for _ in range(4):
            if subprocess.run(command, capture_output=True, timeout=300).returncode == 0:
                return
        run(*command)

    def nodes(self, service: str) -> list[str]:
        """The nodes with a ready pod of the service, except FIRST, which no test kills."""
        return sorted({pod["spec"]["nodeName"] for pod in self.ready(service)} - {FIRST})

    def ready(self, service: str) -> list[Any]:
        """The service's pods that are ready and not terminating."""
        selector = f"app.kubernetes.io/name={service}"
        pods = json.loads(self.kubectl("get", "pods", "-l", selector, "-o", "json"))["items"]
        return [
            pod
            for pod in pods
            if "deletionTimestamp" not in pod["metadata"]
            and any(
                condition["type"] == "Ready" and condition["status"] == "True"
                for condition in pod["status"].get("conditions", [])
            )
        ]

    def wait(self, reached: Callable[[], bool], seconds: float = 900) -> float:
        """Waits until the condition is true; returns the seconds that it took."""
        start = time.monotonic()
        while not reached():
            if time.monotonic() > start + seconds:
                pytest.fail(f"not reached within {seconds} s: {reached}\n{self.state()}")
            time.sleep(0.5)
        return time.monotonic() - start

    def state(self) -> str:
        logs = ("logs", "--tail=8", "--prefix", "-l", "app.kubernetes.io/part-of=icu-stream")
        return self.kubectl("get", "pods", "-o", "wide") + self.kubectl(*logs)

    # Redis and the database are reachable at ports of the first node.

    def _password(self, user: str) -> str:
        found = self.kubectl("get", "secret", user, "-o", "jsonpath={.data.password}")
        return base64.b64decode(found).decode()

    @cached_property
    def redis(self) -> Any:
        return keys.connection(f"redis://{ADDRESS}:30379/0", self._password("redis"))

    @cached_property
    def database_url(self) -> str:
        return f"mysql://dashboard:{self._password('dashboard')}@{ADDRESS}:30306/tooldb"

    def committed(self) -> dict[int, int]:
        """The last stored message of each partition; empty if Redis does not answer."""
        with suppress(RedisError):
            known = self.redis.hgetall(keys.COMMITTED)
            known.pop(keys.COMPLETE.encode(), None)
            return {int(field.rpartition(b"/")[2]): int(seq) for field, seq in known.items()}
        return {}

    def leases(self) -> list[bytes | None]:
        """The tool of each partition; empty if Redis does not answer."""
        with suppress(RedisError):
            found: list[bytes | None] = self.redis.mget(map(keys.lease_key, range(PARTITIONS)))
            return found
        return []

    def done(self) -> bool:
        """Whether the database holds the whole stream, and no prediction is pending; False if Redis
        does not answer.
        """
        with suppress(RedisError, ValueError):
            position = json.loads(self.redis.get(keys.POSITION) or "{}")
            committed = self.committed()
            return bool(
                position.get("ended")
                and all(committed.get(int(p), 0) >= seq for p, seq in position["parts"].items())
                and at_rest(self.database_url)
            )
        return False
