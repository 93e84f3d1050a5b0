"""The loss of MySQL on a cluster, with the component `replica`.

A semi-synchronous replica is made and promoted with the statements and the commands of
docs/operations.md.
"""

from chaos.cluster import FIRST, Cluster
from chaos.replica import statements

SOURCE, REPLICA = "tooldb-0", "tooldb-replica-0"
# kubectl is used as in "Promote the replica".
WRITERS = ("buffer", "tool", "modelapi")
SELECTOR = '{"spec": {"selector": {"app.kubernetes.io/name": "tooldb-replica"}}}'


def follow(cluster: Cluster) -> None:
    """Makes the replica, and waits until it acknowledges commits."""
    cluster.wait(lambda: bool(_sql(cluster, REPLICA, "SELECT 1")))
    _sql(cluster, SOURCE, statements().source)
    try:
        _sql(cluster, REPLICA, statements().copy)
    except RuntimeError as error:
        if "3707" not in str(error):
            raise
    state = "SELECT state FROM performance_schema.clone_status"
    cluster.wait(lambda: "Completed" in _sql(cluster, REPLICA, state))
    _sql(cluster, REPLICA, statements().follow)
    clients = "SHOW STATUS LIKE 'Rpl_semi_sync%clients'"
    cluster.wait(lambda: "clients\t1" in _sql(cluster, SOURCE, clients))


def promote(cluster: Cluster) -> None:
    """Kills the source for ever, and makes the pipeline use the replica."""
    cluster.kubectl("scale", "statefulset/tooldb", "--replicas=0")
    container = "docker ps --quiet --filter label=io.kubernetes.container.name=tooldb"
    cluster.on_node(FIRST, "sh", "-c", f"{container} | xargs docker kill")
    cluster.kubectl("scale", "deployment", *WRITERS, "--replicas=0")
    _sql(cluster, REPLICA, statements().promote)
    cluster.kubectl("patch", "service", "tooldb", "--patch", SELECTOR)
    cluster.kubectl("rollout", "restart", "deployment", "redis", "dashboard")
    cluster.kubectl("scale", "deployment", *WRITERS, "--replicas=2")
    cluster.wait(cluster.whole)


def _sql(cluster: Cluster, pod: str, statements: str) -> str:
    given = statements.replace("SOURCE:", "tooldb:").replace("'SOURCE'", "'tooldb'")
    command = ("exec", "--stdin", pod, "--", "mysql", "--skip-column-names")
    return cluster.kubectl(*command, given=given)
