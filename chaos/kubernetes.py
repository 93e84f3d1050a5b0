"""The faults and the rolling upgrade of a cluster. See `chaos.cluster` for the setting CLUSTER."""

import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError

from chaos import cluster_replica
from chaos.cluster import FIRST, Cluster
from chaos.faults import Fault, at_once, held
from chaos.mysql import Reader
from embedded.programs import ROOT
from wire import keys

# The leases of a dead tool expire after 10 s, and the other tool then starts new workers.
NODE_BOUND = 30.0
# Kubernetes notices a dead node after 20 s here, and starts its pods elsewhere 10 s later.
REDIS_BOUND = 75.0
# The cluster must start new containers.
POD_BOUND = 45.0
ROLLED = ("tool", "buffer", "modelapi", "nginx", "redis", "hospital", "dashboard")
DELETED = ("tool", "buffer", "modelapi", "redis", "tooldb")
PROMOTED = ("news2", "2017")
# The order in which a rolling upgrade replaces services.
UPGRADED = ("tool", "modelapi", "buffer")
# Seconds for which both versions run after each replacement, at least.
SIDE_BY_SIDE = 8.0


Images = dict[str, str]


class KubernetesStack:
    """A cell of deploy/kubernetes, with the settings of chaos/overlay.

    old, new: the images of UPGRADED in two versions, for a rolling upgrade; empty otherwise.
    """

    def __init__(self, cluster: Cluster, old: Images, new: Images) -> None:
        self._cluster = cluster
        self._old, self._new = old, new
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
        self.send_all()

    def send_all(self) -> None:
        self._cluster.kubectl("set", "env", "deployment/hospital", "REPLAY_RATE=0")

    def own_faults(self, _: random.Random) -> list[Fault]:
        return [
            self._at_once("node of a tool killed", partial(self._kill_node, "tool"), NODE_BOUND),
            self._at_once("node of modelapi killed, model promoted", self._promote, NODE_BOUND),
            self._at_once("node of redis killed", self._kill_redis, REDIS_BOUND),
            self._at_once("rolling restart of all workloads", self._restart_all, POD_BOUND),
            *(
                self._at_once(f"pods deleted: {service}", partial(self._delete, service), POD_BOUND)
                for service in DELETED
            ),
            held("redis cut from the network", 8.0, self._cut, self._mend, POD_BOUND),
        ]

    def upgrade(self) -> list[tuple[float, Fault]]:
        """The replacements of all services of the older version by those of this checkout, the way
        back, and the upgrade in the opposite order, each with the pause before it.
        """
        phases = (
            ("upgraded", self._new, UPGRADED),
            ("back to the older version", self._old, UPGRADED),
            ("upgraded", self._new, UPGRADED[::-1]),
        )
        return [
            (
                SIDE_BY_SIDE,
                self._at_once(
                    f"{name}: {service}",
                    partial(self._set_image, service, images[service]),
                    POD_BOUND,
                ),
            )
            for name, images, order in phases
            for service in order
        ]

    def promotion(self) -> list[tuple[float, Fault]]:
        """The loss of the database and the promotion of its replica, after a pause."""
        promote = partial(cluster_replica.promote, self._cluster)
        return [(10.0, self._at_once("tooldb lost, replica promoted", promote, POD_BOUND))]

    def _set_image(self, service: str, image: str) -> None:
        self._cluster.kubectl("set", "image", f"deployment/{service}", f"{service}={image}")
        self._cluster.kubectl("rollout", "status", f"deployment/{service}")

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
        """Kills a node that runs a pod of the service."""
        self._dead = min(self._nodes(service) - {FIRST})
        self._cluster.kill_node(self._dead)

    def _kill_redis(self) -> None:
        """Moves Redis away from the node with the database, and kills its new node."""
        self._cluster.kubectl("cordon", FIRST)
        try:
            self._delete("redis")
            self._cluster.wait(lambda: bool(self._nodes("redis")))
        finally:
            self._cluster.kubectl("uncordon", FIRST)
        self._kill_node("redis")

    def _nodes(self, service: str) -> set[str]:
        return {pod["spec"]["nodeName"] for pod in self._cluster.pods(service)}

    def _promote(self) -> None:
        self._kill_node("modelapi")
        self._run_in_modelapi("promote", *PROMOTED)
        # The recovery is timed from here on, so `_repair` waits for the tools.
        self._promoted = True

    def _run_in_modelapi(self, *command: str) -> None:
        [pod, *_] = [
            pod["metadata"]["name"]
            for pod in self._cluster.pods("modelapi")
            if pod["spec"]["nodeName"] != self._dead
        ]
        self._cluster.kubectl("exec", pod, "--", "python", "-m", "modelapi", *command)

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
def stack(
    patient_data: Path, rate: float, checkout: Path | None, replica: bool
) -> Iterator[KubernetesStack]:
    """checkout: the older version, with which a rolling upgrade begins. replica: whether the
    database gets a replica."""
    cluster = Cluster()
    try:
        cluster.push_images()
        old: Images = {}
        new: Images = {}
        if checkout:
            for service in UPGRADED:
                old[service] = cluster.push_version(service, checkout)
                new[service] = cluster.push_version(service, ROOT)
        overlay = "overlay-replica" if replica else "overlay"
        cluster.start(patient_data, rate, old, overlay=overlay)
        if replica:
            cluster_replica.follow(cluster)
        yield KubernetesStack(cluster, old, new)
    finally:
        cluster.delete()
