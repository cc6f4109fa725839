"""Where the checks play: the ends of a lab, each with its namespace and its address."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import NamedTuple

from overlayd.lab.facts import Facts
from overlayd.lab.model import LabSpec, Node

OUTSIDE = "outside"
"""Who stands outside of the overlay: the lab's root namespace, with etcd's address on the underlay."""


class NotReady(Exception):
    """The lab has no overlay to check yet; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One end of a pair: a pod at its address, or a node at its own address in the overlay, which is the first
    one of its subnet and belongs to its bridge, or OUTSIDE, as it is seen from a node.  `mtu` is what the overlay
    carries from its node, in bytes."""

    name: str
    node: Node
    address: IPv4Address
    mtu: int

    @property
    def netns(self) -> str | None:
        """Its network namespace, None for the one that the checks run in."""
        return None if self.name == OUTSIDE else self.name


class Pair(NamedTuple):
    """Who asks whom."""

    source: Endpoint
    target: Endpoint

    def __str__(self) -> str:
        return f"{self.source.name} → {self.target.name}"


@dataclass(frozen=True)
class Stage:
    spec: LabSpec
    subnets: dict[Node, IPv4Network]
    nodes: tuple[Endpoint, ...]
    pods: tuple[Endpoint, ...]

    @classmethod
    def of(cls, facts: Facts) -> Stage:
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
            nodes=tuple(Endpoint(node.name, node, subnets[node][1], mtus[node]) for node in spec.all_nodes),
            pods=tuple(Endpoint(p.name, p.node, addresses[p.name], mtus[p.node]) for p in spec.all_pods),
        )

    def outside(self, pod: Endpoint) -> Endpoint:
        """What this pod can reach by way of its node, and not by the overlay."""
        return Endpoint(OUTSIDE, pod.node, self.spec.all_etcd_members[0].address, pod.mtu)

    def router_addresses(self, node: Node) -> frozenset[IPv4Address]:
        """Every address that a node may answer from as a router: underlay, tunnel device, bridge."""
        subnet = self.subnets[node]
        return frozenset({node.underlay, subnet[0], subnet[1]})


def every_pair(sources: Iterable[Endpoint], targets: Iterable[Endpoint]) -> tuple[Pair, ...]:
    """All ordered pairs of two different ends."""
    targets = tuple(targets)
    return tuple(Pair(source, target) for source in sources for target in targets if source != target)
