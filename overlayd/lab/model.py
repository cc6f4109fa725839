"""What a lab consists of, as values: every name and address in it follows from its specification.

The underlay is 10.99.0.0/16.  Node n is `node<n>` at 10.99.0.0 + n, etcd member m stands in the lab's own
root namespace at 10.99.255.m.  The k-th pod of node n is `pod<n>-<k>`; its address is the k+1-th of the subnet
that the node leased (the first belongs to the bridge), so it is known only once the daemon has its lease.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network
from pathlib import PurePosixPath

UNDERLAY = IPv4Network("10.99.0.0/16")
HOME = PurePosixPath("/run/lab")
"""The lab's own tmpfs, seen in its mount namespace alone: it goes when the lab goes."""


@dataclass(frozen=True)
class LabSpec:
    name: str = "lab"
    nodes: int = 3
    pods: int = 1
    backend: str = "vxlan"
    network: str = "10.244.0.0/16"
    etcd_members: int = 1

    @cached_property
    def all_nodes(self) -> tuple[Node, ...]:
        return tuple(Node(n) for n in range(1, self.nodes + 1))

    @cached_property
    def all_pods(self) -> tuple[Pod, ...]:
        return tuple(Pod(node, k) for node in self.all_nodes for k in range(1, self.pods + 1))

    @property
    def etcd_endpoints(self) -> tuple[str, ...]:
        return tuple(f"http://{UNDERLAY[255 * 256 + m]}:2379" for m in range(1, self.etcd_members + 1))


@dataclass(frozen=True)
class Node:
    """A host of the lab: a network namespace of the same name, with `eth0` on the underlay."""

    number: int

    @property
    def name(self) -> str:
        return f"node{self.number}"

    @property
    def underlay(self) -> IPv4Address:
        return UNDERLAY[self.number]

    @property
    def home(self) -> PurePosixPath:
        return HOME / self.name

    @property
    def run_dir(self) -> PurePosixPath:
        return self.home / "run"

    @property
    def state_dir(self) -> PurePosixPath:
        return self.home / "state"

    @property
    def subnet_file(self) -> PurePosixPath:
        return self.home / "subnet.env"

    @property
    def log_file(self) -> PurePosixPath:
        return self.home / "overlayd.log"


@dataclass(frozen=True)
class Pod:
    """A pod: a network namespace of the same name, with `eth0` behind the bridge `cni0` of its node."""

    node: Node
    number: int

    @property
    def name(self) -> str:
        return f"pod{self.node.number}-{self.number}"

    def address(self, subnet: IPv4Network) -> IPv4Address:
        return subnet[self.number + 1]
