"""The kernel state that overlayd programs, as values.

Each item is keyed as the kernel keys it: two items with one key cannot stand beside each other.  An item
prints as the line that `ip` or `bridge` would show for it; status, logs and golden tests all use this text.

A userspace datapath stands among the kernel's items as if the kernel had it: one `Datapath` that is attached to
a TUN device, and an `Encap` for each of its prefixes.  So what is wished of it, what it does and what it fails
to do are reconciled, retried and shown like everything else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import InitVar, dataclass, field
from ipaddress import IPv4Address, IPv6Address
from types import MappingProxyType

from overlayd.core.firewall.iptables import ForwardRules
from overlayd.core.firewall.nftables import NftChain, NftItem, NftTable, Sender
from overlayd.core.network.addresses import Family, IPAddress, IPNetwork, Mac

ROUTE_PROTOCOL = 111
"""rtm_protocol of every route that overlayd adds (ASCII 'o').  linux/rtnetlink.h leaves the values above
RTPROT_STATIC to user space; 111 is in none of iproute2's rt_protos lists."""

Key = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class VxlanKind:
    """A VXLAN device's own attributes (linux/if_link.h, IFLA_VXLAN_*).

    A difference here means a new device; MAC, MTU and up/down of the link are changed in place.  `extra` is
    what else is set on a device, in the words of `ip -d link`, that overlayd never sets: no wish has any.
    """

    vni: int
    local: IPAddress
    underlay: str
    port: int = 8472
    learning: bool = False
    gbp: bool = False
    extra: tuple[str, ...] = ()

    def __str__(self) -> str:
        flags = ["learning" if self.learning else "nolearning", *(["gbp"] if self.gbp else []), *self.extra]
        return f"vxlan id {self.vni} local {self.local} dev {self.underlay} dstport {self.port} {' '.join(flags)}"


@dataclass(frozen=True, slots=True)
class TunKind:
    """A TUN device that stays when no process is attached (linux/if_tun.h: IFF_TUN, TUNSETPERSIST).

    The offloads of such a device are whatever the process that attaches asks for, so no wish names them.
    `extra` is what an observed device has that overlayd never asks for, such as `multi_queue`.
    """

    extra: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join(("tun persist", *self.extra))


@dataclass(frozen=True, slots=True)
class Link:
    """A device of ours.  MTU in bytes; a TUN device, carrying bare IP packets, has no MAC."""

    name: str
    kind: VxlanKind | TunKind
    mac: Mac | None
    mtu: int
    up: bool = True

    @property
    def key(self) -> Key:
        return ("link", self.name)

    def __str__(self) -> str:
        address = f" address {self.mac}" if self.mac is not None else ""
        state = "up" if self.up else "down"
        return f"link {self.name} {self.kind}{address} mtu {self.mtu} {state}"


@dataclass(frozen=True, slots=True)
class Address:
    """An address on a device of ours, such as 10.244.3.0/32 on ovl.1."""

    link: str
    address: IPAddress
    prefixlen: int

    @property
    def key(self) -> Key:
        return ("address", self.link, self.address, self.prefixlen)

    def __str__(self) -> str:
        return f"address {self.address}/{self.prefixlen} dev {self.link}"


@dataclass(frozen=True, slots=True)
class Datapath:
    """A userspace datapath that runs: attached to the TUN device `link`, and bound to a UDP port of the
    underlay's address `local`.  It hands inwards what is addressed to a prefix of `own`, and nothing else."""

    link: str
    local: IPAddress
    port: int
    own: tuple[IPNetwork, ...] = ()

    @property
    def key(self) -> Key:
        return ("datapath", self.link)

    def __str__(self) -> str:
        own = ",".join(map(str, self.own)) or "none"
        return f"datapath {self.link} local {self.local} port {self.port} own {own}"


@dataclass(frozen=True, slots=True)
class Encap:
    """An entry of a userspace datapath's forwarding table: packets to `prefix` go to this address and UDP port,
    and packets from `prefix` are let in from this address alone."""

    link: str
    prefix: IPNetwork
    destination: IPAddress
    port: int

    @property
    def key(self) -> Key:
        return ("encap", self.link, self.prefix)

    def __str__(self) -> str:
        return f"encap {self.prefix} dev {self.link} to {self.destination} port {self.port}"


@dataclass(frozen=True, slots=True)
class FdbEntry:
    """Inner MAC → underlay address of the VTEP (`bridge fdb … self permanent`)."""

    link: str
    mac: Mac
    destination: IPAddress

    @property
    def key(self) -> Key:
        return ("fdb", self.link, self.mac)

    def __str__(self) -> str:
        return f"fdb {self.mac} dev {self.link} dst {self.destination} self permanent"


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Overlay address of a peer's VTEP → its inner MAC (`ip neigh … nud permanent`)."""

    link: str
    address: IPAddress
    mac: Mac

    @property
    def key(self) -> Key:
        return ("neighbour", self.link, self.address)

    def __str__(self) -> str:
        return f"neighbour {self.address} lladdr {self.mac} dev {self.link} permanent"


@dataclass(frozen=True, slots=True)
class Route:
    """A unicast route of the main table with our protocol number and metric 0.  Without a gateway it has scope
    link: whatever is behind it is reached by the device itself."""

    destination: IPNetwork
    gateway: IPAddress | None
    link: str
    onlink: bool = False

    @property
    def key(self) -> Key:
        return ("route", self.destination)

    def __str__(self) -> str:
        flag = " onlink" if self.onlink else ""
        via = f" via {self.gateway}" if self.gateway is not None else ""
        return f"route {self.destination}{via} dev {self.link} proto {ROUTE_PROTOCOL}{flag}"


@dataclass(frozen=True, slots=True)
class Forwarding:
    """The kernel forwards packets of this family: net.ipv4.ip_forward is 1, or, where that switch cannot be
    written, every interface but loopback forwards.  It is switched on, and never off again: others rely on it."""

    family: Family

    @property
    def key(self) -> Key:
        return ("forwarding", self.family)

    def __str__(self) -> str:
        return f"forwarding {self.family.name.lower()} on"


Item = Forwarding | ForwardRules | NftItem | Link | Address | Datapath | FdbEntry | Encap | Neighbour | Route

_RANK: Mapping[type[Item], int] = MappingProxyType(
    {
        Forwarding: 0,
        ForwardRules: 0,
        NftTable: 1,
        Sender: 2,
        NftChain: 3,
        Link: 4,
        Address: 5,
        Datapath: 6,
        FdbEntry: 7,
        Encap: 7,
        Neighbour: 8,
        Route: 9,
    }
)


def rank(item: Item) -> int:
    """The order of adding: forwarding, and the rules that let it be; table, sender, chain, so that no chain drops
    what comes from a sender that is about to be let in; link, address, datapath, FDB entry or encap, neighbour,
    route.  Removing is the reverse."""
    return _RANK[type(item)]


def _order(item: Item) -> tuple[object, ...]:
    def sortable(part: object) -> tuple[int, str]:
        if isinstance(part, IPv4Address | IPv6Address):
            return (int(part), "")
        if hasattr(part, "network_address"):
            return (int(part.network_address), str(part))
        return (0, str(part))

    return (rank(item), *(sortable(part) for part in item.key[1:]))


@dataclass(frozen=True, slots=True)
class KernelState:
    """A set of items with distinct keys.  Which of them exist in a kernel is a fact or a wish, never both.

    `index` are the items by their keys, if somebody has that at hand."""

    items: frozenset[Item] = frozenset()
    by_key: Mapping[Key, Item] = field(init=False, repr=False, compare=False, hash=False)
    index: InitVar[Mapping[Key, Item] | None] = None

    def __post_init__(self, index: Mapping[Key, Item] | None) -> None:
        by_key = {item.key: item for item in self.items} if index is None else index
        if len(by_key) != len(self.items):
            twice = sorted(str(item) for item in self.items if by_key[item.key] is not item)
            raise ValueError(f"two items under one kernel key: {'; '.join(twice)}")
        object.__setattr__(self, "by_key", MappingProxyType(by_key))

    @classmethod
    def of(cls, items: Iterable[Item]) -> KernelState:
        return cls(frozenset(items))

    @classmethod
    def union(cls, states: Collection[KernelState]) -> KernelState:
        """All items of these; an item that is in two of them must be the same in both."""
        index: dict[Key, Item] = {}
        for state in states:
            index.update(state.by_key)
        return cls(frozenset[Item]().union(*(state.items for state in states)), index)

    def __or__(self, other: KernelState) -> KernelState:
        return KernelState.union((self, other))

    def __iter__(self) -> Iterator[Item]:
        """In the order of adding, and within one kind by address: the order of every listing."""
        return iter(sorted(self.items, key=_order))

    def __len__(self) -> int:
        return len(self.items)

    def __str__(self) -> str:
        return "\n".join(map(str, self))
