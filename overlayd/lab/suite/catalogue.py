"""The catalogue of checks: the name of each, what it shows, its pairs, and the function that runs it.

They run in this order, one after the other, each over all of its pairs at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from overlayd.lab.model import LabNode
from overlayd.lab.suite.connectivity import TCP, UDP, Exchange, echo, find_wrong_source
from overlayd.lab.suite.forged_packets import (
    encapsulation,
    from_third_node,
    from_unknown_sender,
    outside_the_subnet,
)
from overlayd.lab.suite.forward_drop import forward_drop
from overlayd.lab.suite.leave import leave
from overlayd.lab.suite.path import exact_mtu, routers
from overlayd.lab.suite.ports import Port
from overlayd.lab.suite.probing import Limits, Outcomes
from overlayd.lab.suite.service import ExchangeByService
from overlayd.lab.suite.spoof import Spoof
from overlayd.lab.suite.topology import ProbeEndpoint, ProbePair, Topology, every_pair


@dataclass(frozen=True)
class Check:
    """A check.

    `needs` is what a lab must have for there to be any pair, with the option that gives it.  A check that is
    `apart` changes what the others rely on, or waits for daemons: the self-test does not repeat it without need.
    """

    name: str
    title: str
    pairs: Callable[[Topology], tuple[ProbePair, ...]]
    needs: str
    ask: Callable[[Topology, tuple[ProbePair, ...], Limits], Awaitable[Outcomes]]
    apart: bool = False


def across_nodes(topology: Topology) -> tuple[ProbePair, ...]:
    return tuple(p for p in every_pair(topology.pods, topology.pods) if p.source.node != p.target.node)


def within_nodes(topology: Topology) -> tuple[ProbePair, ...]:
    return tuple(p for p in every_pair(topology.pods, topology.pods) if p.source.node == p.target.node)


def nodes_to_pods(topology: Topology) -> tuple[ProbePair, ...]:
    return every_pair(topology.nodes, topology.pods)


def pods_to_nodes(topology: Topology) -> tuple[ProbePair, ...]:
    return every_pair(topology.pods, topology.nodes)


def out_of_pods(topology: Topology) -> tuple[ProbePair, ...]:
    """Pair pods with the outside, and with the targets for which they must not be masqueraded."""
    if not topology.spec.ip_masq:
        return ()
    outward = tuple(ProbePair(pod, topology.outside(pod)) for pod in topology.pods)
    return outward + pods_to_nodes(topology) + across_nodes(topology)


def nodes_to_a_far_pod(topology: Topology) -> tuple[ProbePair, ...]:
    """Pair every node with one pod of every other, if the backend encapsulates packets."""
    if encapsulation(topology.spec).port is None:
        return ()
    one_of_each: dict[LabNode, ProbeEndpoint] = {}
    for pod in topology.pods:
        one_of_each.setdefault(pod.node, pod)
    pairs = every_pair(topology.nodes, one_of_each.values())
    return tuple(pair for pair in pairs if pair.source.node != pair.target.node)


def clients_and_far_pods(topology: Topology) -> tuple[ProbePair, ...]:
    """Pair all clients of a service, pods and nodes, with pods on other nodes."""
    return across_nodes(topology) + tuple(p for p in nodes_to_pods(topology) if p.source.node != p.target.node)


def pods_to_themselves(topology: Topology) -> tuple[ProbePair, ...]:
    return tuple(ProbePair(pod, pod) for pod in topology.pods)


def last_node_leaves(topology: Topology) -> tuple[ProbePair, ...]:
    return every_pair(topology.nodes[:-1], topology.nodes[-1:])


TWO_NODES = "two nodes with a pod each: `overlayd lab up --nodes 2`"
TWO_PODS = "two pods on a node: `overlayd lab up --pods 2`"
ENCAPSULATING = (
    "a backend that encapsulates packets, and two nodes with a pod each: `overlayd lab up --backend vxlan`"
)
MASQUERADING = "nodes that masquerade: `overlayd lab up --ip-masq`"
A_POD = "a pod: `overlayd lab up --pods 1`"

CHECKS: tuple[Check, ...] = (
    Check(
        "pod-pod-tcp",
        "pods on different nodes reach each other over TCP",
        across_nodes,
        TWO_NODES,
        Exchange(port=Port.POD_POD_TCP, over=[TCP]),
    ),
    Check(
        "pod-pod-udp",
        "pods on different nodes reach each other over UDP",
        across_nodes,
        TWO_NODES,
        Exchange(port=Port.POD_POD_UDP, over=[UDP]),
    ),
    Check("pod-pod-icmp", "pods on different nodes ping each other", across_nodes, TWO_NODES, echo),
    Check(
        "same-node",
        "pods on one node reach each other",
        within_nodes,
        TWO_PODS,
        Exchange(port=Port.SAME_NODE, over=[TCP, UDP]),
    ),
    Check(
        "node-pod",
        "nodes reach the pods on every node",
        nodes_to_pods,
        A_POD,
        Exchange(port=Port.NODE_POD, over=[TCP, UDP]),
    ),
    Check(
        "pod-node",
        "pods reach their own and every other node",
        pods_to_nodes,
        A_POD,
        Exchange(port=Port.POD_NODE, over=[TCP]),
    ),
    Check(
        "no-nat",
        "the server sees the client pod's own address",
        across_nodes,
        TWO_NODES,
        Exchange(port=Port.NO_NAT, over=[TCP, UDP], judge=find_wrong_source),
    ),
    Check(
        "large-tcp",
        "2,000 bytes and 60 kB over TCP arrive unchanged, each way",
        across_nodes,
        TWO_NODES,
        Exchange(port=Port.LARGE_TCP, over=[TCP], sizes=[2_000, 60_000], at_once=16),
    ),
    Check(
        "large-udp",
        "2,000 bytes and 60 kB over UDP arrive unchanged, each way, in fragments",
        across_nodes,
        TWO_NODES,
        Exchange(port=Port.LARGE_UDP, over=[UDP], sizes=[2_000, 60_000], at_once=8),
    ),
    Check(
        "mtu-exact",
        "a packet of exactly the MTU arrives; one byte more is refused, never lost in silence",
        across_nodes,
        TWO_NODES,
        exact_mtu,
    ),
    Check("ttl", "a traceroute sees the nodes on the way", across_nodes, TWO_NODES, routers),
    Check(
        "masquerade-outside",
        "pods have their node's address outside of the network, and their own within",
        out_of_pods,
        MASQUERADING,
        Exchange(port=Port.MASQUERADE_OUTSIDE, over=[TCP], judge=find_wrong_source),
    ),
    Check(
        "spoof-outer",
        "packets from a sender that is not a peer are dropped and counted",
        nodes_to_a_far_pod,
        ENCAPSULATING,
        Spoof(Port.SPOOF_OUTER, from_unknown_sender),
    ),
    Check(
        "spoof-inner",
        "packets of a peer with another node's address are dropped and counted",
        nodes_to_a_far_pod,
        ENCAPSULATING,
        Spoof(Port.SPOOF_INNER, from_third_node),
    ),
    Check(
        "spoof-subnet",
        "packets of a peer for an address outside of the node's subnet are dropped and counted",
        nodes_to_a_far_pod,
        ENCAPSULATING,
        Spoof(Port.SPOOF_SUBNET, outside_the_subnet),
    ),
    Check(
        "service",
        "pods and nodes reach pods on other nodes by a service's address",
        clients_and_far_pods,
        TWO_NODES,
        ExchangeByService(Port.SERVICE, [TCP, UDP]),
    ),
    Check(
        "hairpin",
        "a pod reaches itself by a service's address",
        pods_to_themselves,
        A_POD,
        ExchangeByService(Port.HAIRPIN, [TCP, UDP]),
    ),
    Check(
        "forward-drop",
        "pods on different nodes reach each other though FORWARD's policy is DROP",
        across_nodes,
        TWO_NODES,
        forward_drop,
        apart=True,
    ),
    Check(
        "leave", "a node that leaves is forgotten by every other", last_node_leaves, TWO_NODES, leave, apart=True
    ),
)


class UnknownCheck(ValueError):
    """There is no check of this name; the text lists those that there are."""


def choose_checks(names: list[str]) -> tuple[Check, ...]:
    """Return the checks of these names in the order of the catalogue; all of them where none is named.

    Raises UnknownCheck.
    """
    known = [check.name for check in CHECKS]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UnknownCheck(f"no check is called {', '.join(unknown)}; the checks are {', '.join(known)}")
    return tuple(check for check in CHECKS if not names or check.name in names)
