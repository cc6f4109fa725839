"""The topology that the checks probe: the endpoints of a lab, each with its namespace and its address."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import NamedTuple

from overlayd.lab.model import LabNode, LabSpec
from overlayd.lab.snapshot import LabSnapshot

OUTSIDE = "outside"
"""The endpoint outside of the overlay: the lab's root namespace, with etcd's address on the underlay."""


class NotReady(Exception):
    """The lab has no overlay to check yet; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class ProbeEndpoint:
    """One end of a pair: a pod, a node, or OUTSIDE as a node reaches it.

    A node's address is its own in the overlay: the first one of its subnet, which is the bridge's.  `mtu` is what
    the overlay carries from its node, in bytes.
    """

    name: str
    node: LabNode
    address: IPv4Address
    mtu: int

    @property
    def netns(self) -> str | None:
        """Its network namespace, None for the one that the checks run in."""
        return None if self.name == OUTSIDE else self.name


class ProbePair(NamedTuple):
    """A client and its target."""

    source: ProbeEndpoint
    target: ProbeEndpoint

    def __str__(self) -> str:
        return f"{self.source.name} → {self.target.name}"


@dataclass(frozen=True)
class Topology:
    spec: LabSpec
    subnets: dict[LabNode, IPv4Network]
    nodes: tuple[ProbeEndpoint, ...]
    pods: tuple[ProbeEndpoint, ...]

    @classmethod
    def of(cls, snapshot: LabSnapshot) -> Topology:
        """Derive the topology of a lab.  Raises NotReady, which names what has no subnet or no address yet."""
        spec = snapshot.spec
        missing = [node.name for node in snapshot.nodes if node.subnet is None or node.mtu is None]
        missing += [pod.name for pod in snapshot.pods if pod.address is None]
        if missing:
            raise NotReady(f"no overlay to check yet: {', '.join(missing)} still without an address in it")
        subnets = {node: IPv4Network(snapshot.node(node.name).subnet or "") for node in spec.all_nodes}
        mtus = {node: snapshot.node(node.name).mtu or 0 for node in spec.all_nodes}
        addresses = {pod.name: IPv4Address(pod.address or "") for pod in snapshot.pods}
        return cls(
            spec,
            subnets,
            nodes=tuple(ProbeEndpoint(node.name, node, subnets[node][1], mtus[node]) for node in spec.all_nodes),
            pods=tuple(ProbeEndpoint(p.name, p.node, addresses[p.name], mtus[p.node]) for p in spec.all_pods),
        )

    def outside(self, pod: ProbeEndpoint) -> ProbeEndpoint:
        """Return the endpoint that this pod reaches through its node and not by the overlay."""
        return ProbeEndpoint(OUTSIDE, pod.node, self.spec.all_etcd_members[0].address, pod.mtu)

    def router_addresses(self, node: LabNode) -> frozenset[IPv4Address]:
        """List every address that a node may answer from as a router: underlay, tunnel device, bridge."""
        subnet = self.subnets[node]
        return frozenset({node.underlay, subnet[0], subnet[1]})


def every_pair(sources: Iterable[ProbeEndpoint], targets: Iterable[ProbeEndpoint]) -> tuple[ProbePair, ...]:
    """List all ordered pairs of two different endpoints."""
    targets = tuple(targets)
    return tuple(ProbePair(source, target) for source in sources for target in targets if source != target)
