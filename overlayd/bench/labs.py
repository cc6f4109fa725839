"""The lab of a mode: launches it, adds what its setup asks for, and waits until that is in place."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager

from overlayd.bench import baselines
from overlayd.bench.failure import BenchError
from overlayd.bench.model import Mode
from overlayd.bench.tools import Tools
from overlayd.bench.topology import BenchTopology
from overlayd.core.status.status import PeerState, Verdict
from overlayd.lab.launcher import launched
from overlayd.lab.lifeline import Progress
from overlayd.lab.model import LabNode, LabSpec

ROOMY_NETWORK = "100.64.0.0/10"
"""A network with 16,384 subnets (RFC 6598), for modes with many peers."""
PEERS_PATIENCE = 300.0
"""Seconds until all peers must be in place."""
_POLL = 0.5
"""Seconds between two questions for them."""


@contextmanager
def built(mode: Mode, tools: Tools) -> Generator[BenchTopology]:
    """Launch the lab of a mode; it is gone at the end of the block.  Raises LabError, BenchError."""
    setup = mode.setup
    spec = LabSpec(
        f"bench-{os.getpid()}-{mode}",
        nodes=2,
        pods=1,
        backend=setup.backend,
        network=ROOMY_NETWORK if setup.peers else LabSpec.network,
        datapaths=setup.datapaths,
        ip_masq=setup.ip_masq,
    )
    with ExitStack() as stack:
        held = stack.enter_context(launched(spec, _unseen))
        addresses = {pod.name: pod.address for pod in held.snapshot.pods}
        topology = BenchTopology(
            mode, held.lab, spec, tools, {pod: addresses[pod.name] or "" for pod in spec.all_pods}
        )
        if setup.baseline is not None:
            baselines.set_up(topology, setup.baseline, stack)
        if setup.peers:
            add_peers(topology, setup.peers)
        yield topology


def add_peers(topology: BenchTopology, count: int) -> None:
    """Put leases of so many nodes that do not exist into the lab's etcd, and wait until both nodes have programmed
    them.  Raises BenchError."""
    program = [sys.executable, "-m", "overlayd.bench.peers", str(count), topology.spec.etcd_endpoints[0]]
    topology.run(None, program, PEERS_PATIENCE)
    end = time.monotonic() + PEERS_PATIENCE
    for node in topology.spec.all_nodes:
        while not _knows(topology, node, count + 1):
            if time.monotonic() > end:
                raise BenchError(f"{topology.mode}: {node.name} does not have its {count + 1} peers in place")
            time.sleep(_POLL)


def _knows(topology: BenchTopology, node: LabNode, count: int) -> bool:
    answer = topology.status(node)
    if answer is None or answer.verdict is not Verdict.HEALTHY:
        return False
    return len(answer.status.peers) == count and all(
        peer.state is PeerState.IN_SYNC for peer in answer.status.peers
    )


def _unseen(_progress: Progress) -> None:
    pass
