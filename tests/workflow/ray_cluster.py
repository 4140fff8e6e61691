"""A Ray cluster of two nodes on this machine, until stdin is closed: a script, not a test. Writes its address."""

import os
import sys

os.environ.update(  # as our executor does for a cluster of this machine
    {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
)
from ray.cluster_utils import Cluster

STORE = 80 * 2**20
HOW = {"num_cpus": 1, "num_gpus": 1, "object_store_memory": STORE, "include_dashboard": False}


if __name__ == "__main__":
    cluster = Cluster(initialize_head=True, head_node_args={**HOW, "node_ip_address": "127.0.0.1"})
    try:
        cluster.add_node(**HOW, node_ip_address="127.0.0.1")
        cluster.wait_for_nodes()
        print(cluster.address, flush=True)
        sys.stdin.read()
    finally:
        cluster.shutdown()
