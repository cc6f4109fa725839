"""The parts of a lab as values: every name and address in it follows from its specification.

The underlay is 10.99.0.0/16.  Node n is `node<n>` at 10.99.0.0 + n.  Etcd member m is in the lab's root namespace,
at 10.99.255.m.  The k-th pod of node n is `pod<n>-<k>`; its address is number k + 1 of the subnet that the node
leased (the first is the bridge's), so it is known only once the daemon has its lease.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

UNDERLAY = IPv4Network("10.99.0.0/16")
HOME = Path("/run/lab")
"""The lab's own tmpfs, which only its mount namespace shows, and which ends with the lab."""


@dataclass(frozen=True)
class LabSpec:
    name: str = "lab"
    nodes: int = 3
    pods: int = 1
    backend: str = "vxlan"
    network: str = "10.244.0.0/16"
    etcd_members: int = 1
    datapaths: tuple[str, ...] = ()
    """The datapaths of the udp backend, given to the nodes in turn; empty: each node chooses itself."""
    cni: bool = False
    """Whether the pods get their network from the CNI plugins, as the daemon's configuration says."""
    ip_masq: bool = False
    """Whether the nodes masquerade what pods send out of the network."""

    @cached_property
    def all_nodes(self) -> tuple[LabNode, ...]:
        return tuple(LabNode(n) for n in range(1, self.nodes + 1))

    @cached_property
    def all_pods(self) -> tuple[LabPod, ...]:
        return tuple(LabPod(node, k) for node in self.all_nodes for k in range(1, self.pods + 1))

    @cached_property
    def all_etcd_members(self) -> tuple[EtcdMember, ...]:
        return tuple(EtcdMember(m) for m in range(1, self.etcd_members + 1))

    def datapath(self, node: LabNode) -> str | None:
        return self.datapaths[(node.number - 1) % len(self.datapaths)] if self.datapaths else None

    @property
    def etcd_endpoints(self) -> tuple[str, ...]:
        return tuple(member.client_url for member in self.all_etcd_members)


@dataclass(frozen=True)
class EtcdMember:
    """An etcd server in the lab's root namespace, with an address of its own on the underlay."""

    number: int

    @property
    def name(self) -> str:
        return f"etcd{self.number}"

    @property
    def address(self) -> IPv4Address:
        return UNDERLAY[255 * 256 + self.number]

    @property
    def client_url(self) -> str:
        return f"http://{self.address}:2379"

    @property
    def peer_url(self) -> str:
        return f"http://{self.address}:2380"

    @property
    def home(self) -> Path:
        return HOME / self.name

    @property
    def log_file(self) -> Path:
        return self.home / "etcd.log"


@dataclass(frozen=True)
class LabNode:
    """A host of the lab: a network namespace of the same name, with `eth0` on the underlay."""

    number: int

    @property
    def name(self) -> str:
        return f"node{self.number}"

    @property
    def underlay(self) -> IPv4Address:
        return UNDERLAY[self.number]

    @property
    def home(self) -> Path:
        return HOME / self.name

    @property
    def run_dir(self) -> Path:
        return self.home / "run"

    @property
    def state_dir(self) -> Path:
        return self.home / "state"

    @property
    def subnet_file(self) -> Path:
        return self.home / "subnet.env"

    @property
    def cni_dir(self) -> Path:
        """The directory of the CNI configuration."""
        return self.home / "net.d"

    @property
    def log_file(self) -> Path:
        return self.home / "overlayd.log"


@dataclass(frozen=True)
class LabPod:
    """A pod: a network namespace of the same name, with `eth0` behind the bridge `cni0` of its node."""

    node: LabNode
    number: int

    @property
    def name(self) -> str:
        return f"pod{self.node.number}-{self.number}"

    def address(self, subnet: IPv4Network) -> IPv4Address:
        return subnet[self.number + 1]
