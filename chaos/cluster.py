"""The pipeline on a cluster of three nodes, which are containers icu-k1 to icu-k3.

CLUSTER names a program that controls the running cluster: `push IMAGE…` brings images to its
registry, and `node N` starts a node again. `kubectl` is in the folder of the program.
"""

import base64
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError

from embedded.programs import ROOT
from wire import keys

NAMESPACE = "icu-test"
PARTITIONS = 4
TOOLS = 2
NODES = ("k1", "k2", "k3")
# The node with the database and the CSVs, see the overlay. It is never killed.
FIRST = NODES[0]
ADDRESS = "10.78.0.11"
SERVICES = ("tool", "buffer", "hospital", "dashboard", "nginx", "modelapi")


class Cluster:
    """One cell in a namespace of its own. Redis and the database are reachable at ports of the
    first node.
    """

    def __init__(self) -> None:
        if not os.environ.get("CLUSTER"):
            sys.exit(f"chaos: set CLUSTER. {__doc__}")
        self._program = Path(os.environ["CLUSTER"]).resolve()
        self._kubectl = self._program.parent / "kubectl"

    def start(
        self,
        patient_data: Path,
        rate: float,
        images: dict[str, str],
        tools: int = TOOLS,
        overlay: str = "overlay",
    ) -> None:
        """Starts the pipeline with images of this checkout, except the given images of services."""
        _run(self._kubectl, "delete", "namespace", NAMESPACE, "--ignore-not-found")
        self._copy_data(patient_data)
        _run(self._kubectl, "create", "namespace", NAMESPACE)
        self.kubectl("create", "-f", "-", given=_run(ROOT / "deploy/kubernetes/secrets.sh"))
        kubectl = Path(sys.executable).parent / "kubectl"
        manifests = _run(kubectl, "kustomize", ROOT / "chaos" / overlay)
        manifests = manifests.replace('REPLAY_RATE: "250"', f'REPLAY_RATE: "{rate:g}"')
        for service, image in images.items():
            latest = f"image: icu-registry:5000/icu-stream/{service}\n"
            manifests = manifests.replace(latest, f"image: {image}\n")
        self.kubectl("apply", "-f", "-", given=manifests)
        self.kubectl("scale", "deployment/tool", f"--replicas={tools}")
        self.wait(lambda: self.whole(tools))

    def delete(self) -> None:
        _run(self._kubectl, "delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=false")

    def kubectl(self, *arguments: str, given: str = "") -> str:
        return _run(self._kubectl, "-n", NAMESPACE, *arguments, given=given)

    def push_version(self, service: str, checkout: Path) -> str:
        """Builds and pushes a service of a checkout. Returns the name of the image, with a tag for
        this content, because nodes pull a tag only once."""
        file = ("-f", checkout / service / "Dockerfile")
        built = _run("docker", "build", "-q", *file, checkout).strip()
        name = f"icu-stream/{service}:{built.removeprefix('sha256:')[:12]}"
        _run("docker", "tag", built, name)
        _run(self._program, "push", name)
        return f"icu-registry:5000/{name}"

    def push_images(self) -> None:
        """Builds and pushes all images of this checkout."""
        for service in SERVICES:
            image = ("-t", f"icu-stream/{service}", "-f", f"{service}/Dockerfile")
            _run("docker", "build", "-q", *image, ".")
        _run("docker", "build", "-q", "-t", "icu-stream/tooldb", "tooldb")
        images = [f"icu-stream/{service}" for service in (*SERVICES, "tooldb")]
        _run(self._program, "push", "redis:8", *images)

    def _copy_data(self, patient_data: Path) -> None:
        for node in NODES:
            prepare = "rm -rf /data && mkdir -p /data/tooldb && chown 999 /data/tooldb"
            self.on_node(node, "sh", "-c", prepare)
        _run("docker", "cp", patient_data, f"icu-{FIRST}:/data/patient_data")
        self.on_node(FIRST, "chmod", "-R", "a+rX", "/data/patient_data")

    def on_node(self, node: str, *command: str) -> str:
        """Runs a command on a node; returns its output."""
        return _run("docker", "exec", f"icu-{node}", *command)

    def kill_node(self, node: str) -> None:
        """Kills a node as a power failure would."""
        # A power failure would empty /run. With this file, the engine would not start again.
        self.on_node(node, "rm", "-f", "/run/docker/containerd/containerd.pid")
        _run("docker", "kill", f"icu-{node}")

    def start_node(self, node: str) -> None:
        _run(self._program, "node", node.removeprefix("k"))

    def pods(self, service: str) -> list[Any]:
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

    def whole(self, tools: int = TOOLS) -> bool:
        """Whether all workloads have all their pods, and the tools share the partitions."""
        found = json.loads(self.kubectl("get", "deployments,statefulsets", "-o", "json"))["items"]
        counts = ("replicas", "readyReplicas", "updatedReplicas")
        return self.shared(tools) and all(
            item["status"].get(count, 0) == item["spec"]["replicas"]
            for item in found
            for count in counts
        )

    def shared(self, tools: int) -> bool:
        """Whether this number of tools share the partitions evenly."""
        with suppress(RedisError):
            leases = self.redis.mget(map(keys.lease_key, range(PARTITIONS)))
            counts = [count for tool, count in Counter(leases).items() if tool is not None]
            return counts == [PARTITIONS // tools] * tools
        return False

    def wait(self, reached: Callable[[], bool], seconds: float = 600) -> None:
        """Waits until the condition is true. A command may fail meanwhile."""
        deadline = time.monotonic() + seconds
        while True:
            with suppress(RuntimeError):
                if reached():
                    return
            if time.monotonic() > deadline:
                raise RuntimeError(f"not reached within {seconds} s: {reached}\n{self.state()}")
            time.sleep(0.5)

    def state(self) -> str:
        """The pods, and the ends of their logs."""
        logs = ("logs", "--tail=8", "--prefix", "-l", "app.kubernetes.io/part-of=icu-stream")
        return self.kubectl("get", "pods", "-o", "wide") + self.kubectl(*logs)

    def _password(self, user: str) -> str:
        found = self.kubectl("get", "secret", user, "-o", "jsonpath={.data.password}")
        return base64.b64decode(found).decode()

    @cached_property
    def redis(self) -> Any:
        """A client of Redis."""
        return keys.connection(f"redis://{ADDRESS}:30379/0", self._password("redis"))

    @cached_property
    def database_url(self) -> str:
        return f"mysql://dashboard:{self._password('dashboard')}@{ADDRESS}:30306/tooldb"


def _run(*command: str | Path, given: str = "") -> str:
    done = subprocess.run(
        command, cwd=ROOT, input=given, capture_output=True, text=True, timeout=580
    )
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stderr or done.stdout}")
    return done.stdout
