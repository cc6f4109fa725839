"""The kernel state that overlayd programs, as values: what an item says for itself, and the routing tables' items.

Each item is keyed as the kernel keys it: two items with one key cannot stand beside each other.  An item prints as
the line that `ip` or `bridge` would show for it; status, logs and golden tests all use this text.

An item's type declares all that planning needs to know: where it comes in the order of adding, what it depends on,
what takes it along, and how it goes.  So the plan, the composite driver and the fakes name no type, and a third
party's driver brings types of its own.  The types of the packet filters and of userspace datapaths stand with
their subjects (`core.firewall`, `core.kernel.datapath`).
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import InitVar, dataclass, field
from ipaddress import IPv4Address, IPv6Address
from types import MappingProxyType
from typing import ClassVar

from overlayd.core.network.addresses import Family, IPAddress, IPNetwork, Mac

ROUTE_PROTOCOL = 111
"""rtm_protocol of every route that overlayd adds (ASCII 'o').  linux/rtnetlink.h leaves the values above
RTPROT_STATIC to user space; 111 is in none of iproute2's rt_protos lists."""

Key = tuple[object, ...]
"""The noun of the item's type, then what tells it from others of that type."""


class Rank(enum.IntEnum):
    """The order of adding; removing is the reverse.  Operations of one rank do not depend on one another.

    Sets come before the chains that look into them, so that no chain drops what is about to be let in; entries
    come before the neighbours that lead to them, and these before routes.  There is room between for others.
    """

    HOST = 0
    """Settings of the host, and rules in others' tables."""
    TABLE = 10
    ELEMENT = 20
    CHAIN = 30
    LINK = 40
    ADDRESS = 50
    DATAPATH = 60
    ENTRY = 70
    """Of a forwarding table below the routes: FDB entries, encaps."""
    NEIGHBOUR = 80
    ROUTE = 90


class Removal(enum.Enum):
    """The way in which an item goes that is no longer desired."""

    EARLY = enum.auto()
    """Before anything is added: it may stand in the way of what is added, or must not outlive what goes later."""
    LATE = enum.auto()
    """After all was added."""
    WHOLE = enum.auto()
    """Late, and by one operation with all that it contains."""
    NEVER = enum.auto()
    """Others rely on it by now."""


class Replacement(enum.Enum):
    """The way from an item to another one with its key."""

    IN_PLACE = enum.auto()
    """One operation, CHANGE; what it contains stays."""
    ANEW = enum.auto()
    """One operation, CHANGE, by which all that it contains vanishes."""
    REMOVE_FIRST = enum.auto()
    """Two operations, REMOVE and ADD; what it contains vanishes with the old one."""


class Item:
    """One thing in the kernel, or beside it, that overlayd puts there.  Subclasses are frozen dataclasses.

    They print as one line of printable text, and are equal if they are the same thing with the same attributes.
    """

    __slots__ = ()

    noun: ClassVar[str]
    """The first part of the key: one word for each type of a driver."""
    rank: ClassVar[int]
    """Above that of all that `needs` may name."""
    removal: ClassVar[Removal] = Removal.LATE
    within: ClassVar[str] = ""
    """The noun of its container, "" if it has none."""
    is_datapath: ClassVar[bool] = False
    """Whether packets of all peers pass through it, in this process: status says so if it can't be had."""

    @property
    def key(self) -> Key:
        """Its noun, then what tells it from others of its type."""
        raise NotImplementedError

    @property
    def container(self) -> Key | None:
        """The key of what takes it along when that goes or is replaced: its link, its table."""
        return None

    def needs(self, desired: Mapping[Key, Item]) -> Iterable[Key]:
        """Name what must be in place before this is of use, given all that is desired.  What is not in `desired`
        is not waited for."""
        return () if self.container is None else (self.container,)

    def replacement(self, wanted: Item) -> Replacement:
        """Say what it takes to change this into `wanted`, which has the same key."""
        return Replacement.IN_PLACE

    def conflict(self, other: Item) -> str:
        """Say why this can't stand beside `other`, which has another key; "" if it can."""
        return ""


class OnLink(Item):
    """An item on a device, its `link`, that goes with it."""

    __slots__ = ()

    within: ClassVar[str] = "link"

    link: str

    @property
    def container(self) -> Key:
        return ("link", self.link)


@dataclass(frozen=True, slots=True)
class VxlanKind:
    """A VXLAN device's own attributes (linux/if_link.h, IFLA_VXLAN_*).

    A difference here means a new device; MAC, MTU and up/down of the link are changed in place.  `extra` is
    what else is set on a device, in the words of `ip -d link`, that overlayd never sets: no desired link has any.
    """

    word: ClassVar[str] = "vxlan"
    """As `ip -d link` names the kind."""

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

    The offloads of such a device are whatever the process that attaches asks for, so no desired link names them.
    `extra` is what an observed device has that overlayd never asks for, such as `multi_queue`.
    """

    word: ClassVar[str] = "tun"

    extra: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join(("tun persist", *self.extra))


@dataclass(frozen=True, slots=True)
class Link(Item):
    """A device of ours.  MTU in bytes; a TUN device, carrying bare IP packets, has no MAC."""

    noun: ClassVar[str] = "link"
    rank: ClassVar[int] = Rank.LINK

    name: str
    kind: VxlanKind | TunKind
    mac: Mac | None
    mtu: int
    up: bool = True

    @property
    def key(self) -> Key:
        return ("link", self.name)

    def replacement(self, wanted: Item) -> Replacement:
        same_kind = isinstance(wanted, Link) and wanted.kind == self.kind
        return Replacement.IN_PLACE if same_kind else Replacement.REMOVE_FIRST

    def __str__(self) -> str:
        address = f" address {self.mac}" if self.mac is not None else ""
        state = "up" if self.up else "down"
        return f"link {self.name} {self.kind}{address} mtu {self.mtu} {state}"


@dataclass(frozen=True, slots=True)
class Address(OnLink):
    """An address on a device of ours, such as 10.244.3.0/32 on ovl.1."""

    noun: ClassVar[str] = "address"
    rank: ClassVar[int] = Rank.ADDRESS

    link: str
    address: IPAddress
    prefixlen: int

    @property
    def key(self) -> Key:
        return ("address", self.link, self.address, self.prefixlen)

    def __str__(self) -> str:
        return f"address {self.address}/{self.prefixlen} dev {self.link}"


@dataclass(frozen=True, slots=True)
class FdbEntry(OnLink):
    """Inner MAC → underlay address of the VTEP (`bridge fdb … self permanent`)."""

    noun: ClassVar[str] = "fdb"
    rank: ClassVar[int] = Rank.ENTRY

    link: str
    mac: Mac
    destination: IPAddress

    @property
    def key(self) -> Key:
        return ("fdb", self.link, self.mac)

    def __str__(self) -> str:
        return f"fdb {self.mac} dev {self.link} dst {self.destination} self permanent"


@dataclass(frozen=True, slots=True)
class Neighbour(OnLink):
    """Overlay address of a peer's VTEP → its inner MAC (`ip neigh … nud permanent`)."""

    noun: ClassVar[str] = "neighbour"
    rank: ClassVar[int] = Rank.NEIGHBOUR

    link: str
    address: IPAddress
    mac: Mac

    @property
    def key(self) -> Key:
        return ("neighbour", self.link, self.address)

    def needs(self, desired: Mapping[Key, Item]) -> Iterable[Key]:
        return self.container, ("fdb", self.link, self.mac)

    def __str__(self) -> str:
        return f"neighbour {self.address} lladdr {self.mac} dev {self.link} permanent"


@dataclass(frozen=True, slots=True)
class Route(OnLink):
    """A unicast route of the main table with our protocol number and metric 0.  Without a gateway it has scope
    link: whatever is behind it is reached by the device itself."""

    noun: ClassVar[str] = "route"
    rank: ClassVar[int] = Rank.ROUTE
    removal: ClassVar[Removal] = Removal.EARLY

    destination: IPNetwork
    gateway: IPAddress | None
    link: str
    onlink: bool = False

    @property
    def key(self) -> Key:
        return ("route", self.destination)

    def needs(self, desired: Mapping[Key, Item]) -> Iterable[Key]:
        """List the neighbour and its FDB entry: the one may exist already, and the other not."""
        neighbour = ("neighbour", self.link, self.gateway)
        vtep = desired.get(neighbour)
        return self.container, neighbour, *(vtep.needs(desired) if vtep is not None else ())

    def __str__(self) -> str:
        flag = " onlink" if self.onlink else ""
        via = f" via {self.gateway}" if self.gateway is not None else ""
        return f"route {self.destination}{via} dev {self.link} proto {ROUTE_PROTOCOL}{flag}"


@dataclass(frozen=True, slots=True)
class Forwarding(Item):
    """The kernel forwards packets of this family: net.ipv4.ip_forward is 1, or, where that switch cannot be
    written, every interface but loopback forwards.  It is switched on, and never off again: others rely on it."""

    noun: ClassVar[str] = "forwarding"
    rank: ClassVar[int] = Rank.HOST
    removal: ClassVar[Removal] = Removal.NEVER

    family: Family

    @property
    def key(self) -> Key:
        return ("forwarding", self.family)

    def __str__(self) -> str:
        return f"forwarding {self.family.name.lower()} on"


def _order(item: Item) -> tuple[object, ...]:
    def sortable(part: object) -> tuple[int, str]:
        if isinstance(part, IPv4Address | IPv6Address):
            return (int(part), "")
        if hasattr(part, "network_address"):
            return (int(part.network_address), str(part))
        return (0, str(part))

    return (item.rank, *(sortable(part) for part in item.key[1:]))


@dataclass(frozen=True, slots=True)
class KernelState:
    """A set of items with distinct keys.  It is an actual or a desired state, never both.

    `index` are the items by their keys, where the caller has them."""

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
        """Return all items of these; an item that is in two of them must be the same in both."""
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
