"""Where the checks play: the ends of a lab, each with its namespace and its address."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import NamedTuple

from overlayd.lab.model import LabNode, LabSpec
from overlayd.lab.snapshot import LabSnapshot

OUTSIDE = "outside"
"""Who stands outside of the overlay: the lab's root namespace, with etcd's address on the underlay."""


class NotReady(Exception):
    """The lab has no overlay to check yet; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class ProbeEndpoint:
    """One end of a pair: a pod at its address, or a node at its own address in the overlay, which is the first
    one of its subnet and belongs to its bridge, or OUTSIDE, as it is seen from a node.  `mtu` is what the overlay
    carries from its node, in bytes."""

    name: str
    node: LabNode
    address: IPv4Address
    mtu: int

    @property
    def netns(self) -> str | None:
        """Its network namespace, None for the one that the checks run in."""
        return None if self.name == OUTSIDE else self.name


class ProbePair(NamedTuple):
    """Who asks whom."""

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
    def of(cls, facts: LabSnapshot) -> Topology:
        """Raises NotReady, naming what has no subnet or no address yet."""
        spec = facts.spec
        missing = [node.name for node in facts.nodes if node.subnet is None or node.mtu is None]
        missing += [pod.name for pod in facts.pods if pod.address is None]
        if missing:
            raise NotReady(f"no overlay to check yet: {', '.join(missing)} still without an address in it")
        subnets = {node: IPv4Network(facts.node(node.name).subnet or "") for node in spec.all_nodes}
        mtus = {node: facts.node(node.name).mtu or 0 for node in spec.all_nodes}
        addresses = {pod.name: IPv4Address(pod.address or "") for pod in facts.pods}
        return cls(
            spec,
            subnets,
            nodes=tuple(ProbeEndpoint(node.name, node, subnets[node][1], mtus[node]) for node in spec.all_nodes),
            pods=tuple(ProbeEndpoint(p.name, p.node, addresses[p.name], mtus[p.node]) for p in spec.all_pods),
        )

    def outside(self, pod: ProbeEndpoint) -> ProbeEndpoint:
        """What this pod can reach by way of its node, and not by the overlay."""
        return ProbeEndpoint(OUTSIDE, pod.node, self.spec.all_etcd_members[0].address, pod.mtu)

    def router_addresses(self, node: LabNode) -> frozenset[IPv4Address]:
        """Every address that a node may answer from as a router: underlay, tunnel device, bridge."""
        subnet = self.subnets[node]
        return frozenset({node.underlay, subnet[0], subnet[1]})


def every_pair(sources: Iterable[ProbeEndpoint], targets: Iterable[ProbeEndpoint]) -> tuple[ProbePair, ...]:
    """All ordered pairs of two different ends."""
    targets = tuple(targets)
    return tuple(ProbePair(source, target) for source in sources for target in targets if source != target)
