"""Runs the pipeline on a real cluster, kills nodes, restarts programs, and compares all rows.

The test takes minutes. It runs only if CLUSTER names a program that creates a cluster; see
tests/support/cluster.py.
"""

import json
import os
from contextlib import suppress
from pathlib import Path

import pytest
from redis.exceptions import RedisError

from tests.support.cluster import PARTITIONS, Cluster
from tests.support.oracle import check
from tests.support.pipeline import synthetic
from wire import keys

pytestmark = [
    pytest.mark.timeout(1500),
    pytest.mark.skipif(not os.environ.get("CLUSTER"), reason="no CLUSTER"),
]

# Stands for the declaration while Redis has none.
NONE = '{"champion": {"model": ""}}'


def shared(cluster: Cluster) -> bool:
    """Whether each of the two tools has two partitions."""
    leases = cluster.leases()
    return None not in leases and sorted(map(leases.count, set(leases))) == [2, 2]


def moved_since(cluster: Cluster, before: dict[int, int]) -> bool:
    now = cluster.committed()
    return all(now.get(part, 0) > before.get(part, 0) for part in range(PARTITIONS))


def champion(cluster: Cluster) -> str:
    """The champion that the tools publish; empty before the first declaration, or if
    Redis does not answer.
    """
    with suppress(RedisError):
        return str(json.loads(cluster.redis.get(keys.DECLARATION) or NONE)["champion"]["model"])
    return ""


def test_nothing_is_lost_when_nodes_die_and_everything_restarts(tmp_path: Path) -> None:
    ward = synthetic(tmp_path / "ward", "--patients", "300", "--days", "11", "--seed", "3")
    with Cluster(Path(os.environ["CLUSTER"]).resolve(), ward) as cluster:
        cluster.wait(lambda: shared(cluster) and moved_since(cluster, {}))
        print("a tool's node dies")
        [node, *_] = cluster.nodes("tool")
        cluster.kill_node(node)
        before = cluster.committed()
        seconds = cluster.wait(lambda: moved_since(cluster, before))
        print(f"all partitions move again after {seconds:.1f} s")
        cluster.start_node(node)
        cluster.wait(lambda: len(cluster.ready("tool")) == 2 and shared(cluster))
        print("a node of modelapi dies, and another model becomes the champion meanwhile")
        cluster.wait(lambda: len(cluster.ready("modelapi")) == 2)
        [node, *_] = cluster.nodes("modelapi")
        cluster.kill_node(node)
        [pod, *_] = [pod for pod in cluster.ready("modelapi") if pod["spec"]["nodeName"] != node]
        promote = ("python", "-m", "modelapi", "promote", "news2", "2017")
        cluster.wait(lambda: cluster.succeeds("exec", pod["metadata"]["name"], "--", *promote))
        cluster.wait(lambda: champion(cluster) == "news2")
        before = cluster.committed()
        cluster.wait(lambda: moved_since(cluster, before))
        cluster.start_node(node)
        print("everything restarts")
        assert not cluster.done(), "the stream ended before the last restart"
        cluster.kubectl("rollout", "restart", "deployment")
        cluster.kubectl("rollout", "restart", "statefulset")
        for workload in ("tool", "buffer", "modelapi", "nginx", "redis", "dashboard"):
            cluster.kubectl("rollout", "status", f"deployment/{workload}")
        print("the rest of the stream is sent at full speed")
        cluster.kubectl("set", "env", "deployment/hospital", "REPLAY_RATE=0")
        cluster.wait(cluster.done, 900)
        assert champion(cluster) == "news2"
        print(check(ward, cluster.database_url, "live"))
