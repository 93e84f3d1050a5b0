"""The faults of a cluster. See `chaos.cluster` for the setting CLUSTER."""

import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError

from chaos.cluster import FIRST, Cluster
from chaos.faults import Fault, at_once, held
from chaos.mysql import Reader
from wire import keys

# The leases of a dead tool expire after 10 s, and the other tool then starts new workers.
# Kubernetes notices a dead node after 20 s here, and starts its pods elsewhere 10 s later.
NODE_BOUND = 30.0
# The cluster must start new containers.
POD_BOUND = 45.0
ROLLED = ("tool", "buffer", "modelapi", "nginx", "redis", "hospital", "dashboard")
DELETED = ("tool", "buffer", "modelapi", "redis", "tooldb")
PROMOTED = ("news2", "2017")


class KubernetesStack:
    """A cell of deploy/kubernetes, with the settings of chaos/overlay."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._dead: str | None = None
        self._promoted = False
        # The node and the address of Redis while it is cut off.
        self._of_redis = ("", "")
        self._redis: Any = cluster.redis
        self.database_url = cluster.database_url
        self.query = Reader(lambda: self.database_url).query

    def redis_command(self, *command: str) -> str:
        answer: Any = self._redis.execute_command(*command)
        return answer.decode() if isinstance(answer, bytes) else str(answer)

    def hurry(self) -> None:
        """Sends the rest of the stream at full speed, to programs that are all running."""
        self._repair()
        self._cluster.kubectl("set", "env", "deployment/hospital", "REPLAY_RATE=0")

    def own_faults(self, _: random.Random) -> list[Fault]:
        return [
            self._at_once("node of a tool killed", partial(self._kill_node, "tool"), NODE_BOUND),
            self._at_once("node of modelapi killed, model promoted", self._promote, NODE_BOUND),
            self._at_once("rolling restart of all workloads", self._restart_all, POD_BOUND),
            *(
                self._at_once(f"pods deleted: {service}", partial(self._delete, service), POD_BOUND)
                for service in DELETED
            ),
            held("redis cut from the network", 8.0, self._cut, self._mend, POD_BOUND),
        ]

    def _at_once(self, name: str, act: Callable[[], None], bound: float) -> Fault:
        """A fault of a cluster without other faults."""

        def begin() -> None:
            self._repair()
            act()

        return at_once(name, begin, bound)

    def _repair(self) -> None:
        """Starts the node that is dead, and waits until all programs are ready and the tools know
        the promoted model."""
        if self._dead is not None:
            self._cluster.start_node(self._dead)
            self._dead = None
        self._cluster.wait(self._cluster.whole)
        if self._promoted:
            self._cluster.wait(lambda: self._champion() == PROMOTED[0], 90)

    def _kill_node(self, service: str) -> None:
        """Kills a node that runs a pod of the service, if possible one without Redis."""
        of_redis = self._nodes("redis")
        nodes = self._nodes(service) - {FIRST}
        self._dead = min(nodes, key=lambda node: (node in of_redis, node))
        self._cluster.kill_node(self._dead)

    def _nodes(self, service: str) -> set[str]:
        return {pod["spec"]["nodeName"] for pod in self._cluster.pods(service)}

    def _promote(self) -> None:
        self._kill_node("modelapi")
        [pod, *_] = [
            pod["metadata"]["name"]
            for pod in self._cluster.pods("modelapi")
            if pod["spec"]["nodeName"] != self._dead
        ]
        promote = ("python", "-m", "modelapi", "promote", *PROMOTED)
        self._cluster.kubectl("exec", pod, "--", *promote)
        # The recovery is timed from here on, so `_repair` waits for the tools.
        self._promoted = True

    def _champion(self) -> str:
        """The champion that the tools publish; empty if there is none."""
        with suppress(RedisError):
            declared = self._redis.get(keys.DECLARATION)
            return str(json.loads(declared)["champion"]["model"]) if declared else ""
        return ""

    def _delete(self, service: str) -> None:
        """Deletes all pods of a service without waiting for the end of their programs."""
        force = ("--grace-period=0", "--force")
        self._cluster.kubectl("delete", "pods", "-l", f"app.kubernetes.io/name={service}", *force)

    def _restart_all(self) -> None:
        self._cluster.kubectl("rollout", "restart", "deployment")
        self._cluster.kubectl("rollout", "restart", "statefulset")
        for name in ROLLED:
            self._cluster.kubectl("rollout", "status", f"deployment/{name}")
        self._cluster.kubectl("rollout", "status", "statefulset/tooldb")

    def _cut(self) -> None:
        """Drops all packets from and to Redis."""
        self._repair()
        [pod] = self._cluster.pods("redis")
        self._of_redis = (pod["spec"]["nodeName"], pod["status"]["podIP"])
        self._filter("-I")

    def _mend(self) -> None:
        self._filter("-D")

    def _filter(self, change: str) -> None:
        """Adds (-I) or deletes (-D) the rules of the firewall on the node of Redis."""
        node, address = self._of_redis
        for direction in ("-s", "-d"):
            rule = ("iptables", change, "FORWARD", direction, address, "-j", "DROP")
            self._cluster.on_node(node, *rule)


@contextmanager
def stack(_: Path, patient_data: Path, rate: float) -> Iterator[KubernetesStack]:
    cluster = Cluster()
    try:
        cluster.start(patient_data, rate)
        yield KubernetesStack(cluster)
    finally:
        cluster.delete()
