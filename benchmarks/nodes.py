"""`CLUSTER=… python -m benchmarks.nodes [NODES,TOOLS…]`: measures a cell on one to three nodes.

All nodes share the cores of one machine, so this measures the CPU time of a message, and not the
gain of additional hosts. Hospital sends at full speed, and the models are those as shipped. In the
end, all rows are compared. `chaos/cluster.py` describes the cluster.
"""

import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from chaos.cluster import NODES, PARTITIONS, Cluster
from chaos.kubernetes import KubernetesStack
from chaos.run import finished, positions
from tests.support.oracle import check
from tests.support.pipeline import synthetic

# (nodes, tools)
CASES = ((1, 2), (2, 2), (3, 1), (3, 2), (3, 4))
PATIENTS = 240
# Messages that are stored before the measurement begins.
WARM_UP = 2_000
SERVICES = ("tool", "modelapi", "tooldb", "nginx", "redis", "buffer", "hospital", "dashboard")


def main() -> int:
    wanted = [tuple(map(int, case.split(","))) for case in sys.argv[1:]] or CASES
    print(
        f"| nodes | tools at {PARTITIONS} partitions | messages/s | {' | '.join(SERVICES)} | all |"
    )
    with tempfile.TemporaryDirectory(prefix="icu-nodes-") as temporary:
        ward = synthetic(
            Path(temporary) / "ward", "--patients", str(PATIENTS), "--days", "20", "--seed", "1"
        )
        for nodes, tools in wanted:
            speed, cpu = measure(ward, nodes, tools)
            figures = (speed, *(cpu[name] for name in SERVICES), sum(cpu.values()))
            print(f"| {nodes} | {tools} | {' | '.join(f'{x:,.0f}' for x in figures)} |", flush=True)
    return 0


def measure(ward: Path, nodes: int, tools: int) -> tuple[float, dict[str, float]]:
    """Returns the messages per second, and the µs of CPU time per message of each service."""
    cluster = Cluster()
    unused = NODES[nodes:]
    try:
        for node in unused:
            cluster.kubectl("cordon", node)
        cluster.start(ward, 1, {}, tools)
        stack = KubernetesStack(cluster, {}, {})
        stack.send_all()
        first = _wait(lambda: _stored(stack) > WARM_UP and _stored(stack))
        began, before = time.monotonic(), cpu_seconds(cluster)
        _wait(lambda: finished(stack))
        seconds = time.monotonic() - began
        used = cpu_seconds(cluster)
        messages = _stored(stack) - first
        print(check(ward, stack.database_url, "live"), file=sys.stderr)
        cpu = {name: (used[name] - before[name]) / messages * 1e6 for name in SERVICES}
        return messages / seconds, cpu
    finally:
        for node in unused:
            cluster.kubectl("uncordon", node)
        cluster.delete()


def cpu_seconds(cluster: Cluster) -> dict[str, float]:
    """The CPU time of each service's pods, as their control groups count it."""
    usage: dict[str, float] = {}
    # Version 1 counts nanoseconds in cpuacct.usage, and version 2 microseconds in cpu.stat.
    files = "cpuacct/kubepods/*/pod*/cpuacct.usage kubepods/*/pod*/cpu.stat"
    command = f"cd /sys/fs/cgroup; grep -H . {files} 2>/dev/null || true"
    for node in NODES:
        read = cluster.on_node(node, "sh", "-c", command)
        for pod, key, number in re.findall(r"/pod([^/]+)/\S+:(usage_usec )?(\d+)$", read, re.M):
            usage[pod] = int(number) / (1e6 if key else 1e9)
    return {
        service: sum(usage[pod["metadata"]["uid"]] for pod in cluster.pods(service))
        for service in SERVICES
    }


def _stored(stack: KubernetesStack) -> int:
    return max(positions(stack).values(), default=0)


def _wait(reached: Callable[[], int], seconds: float = 300) -> int:
    """Waits until the value is true, and returns it."""
    deadline = time.monotonic() + seconds
    while not (value := reached()):
        if time.monotonic() > deadline:
            raise RuntimeError(f"not reached within {seconds:g} s")
        time.sleep(0.1)
    return value


if __name__ == "__main__":
    sys.exit(main())
