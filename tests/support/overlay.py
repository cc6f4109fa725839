"""A small overlay as kernel items: this node, and peers by number."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

from overlayd.core.kernel.driver import Driver, Operation, Scope, Verb
from overlayd.core.kernel.items import (
    Address,
    FdbEntry,
    Forwarding,
    Item,
    KernelState,
    Link,
    Neighbour,
    Route,
    TunKind,
    VxlanKind,
)
from overlayd.core.network.addresses import Family, Mac

DEVICE = "ovl.1"
TUN = "ovl.udp"
NETWORK = IPv4Network("10.244.0.0/16")
FORWARDING = Forwarding(Family.IPV4)


def vxlan(number: int = 1, underlay: str = "eth0", port: int = 8472) -> VxlanKind:
    """The tunnel of the node at 10.99.0.<number>."""
    return VxlanKind(vni=1, local=IPv4Address(f"10.99.0.{number}"), underlay=underlay, port=port)


def link(number: int = 1, underlay: str = "eth0") -> Link:
    return Link(DEVICE, vxlan(number, underlay), mac(number), 1450)


def tun(mtu: int = 1472) -> Link:
    return Link(TUN, TunKind(), None, mtu)


def tun_node(number: int = 1) -> KernelState:
    """What the udp backend wants of the kernel alone: its datapath is not the kernel's."""
    own = Address(TUN, subnet(number).network_address, 32)
    return KernelState.of([FORWARDING, tun(), own, Route(NETWORK, None, TUN)])


def address(number: int = 1) -> Address:
    return Address(DEVICE, subnet(number).network_address, 32)


def subnet(number: int) -> IPv4Network:
    return IPv4Network(f"10.244.{number}.0/24")


def mac(number: int) -> Mac:
    return Mac(bytes([2, 0, 0, 0, 0, number]))


def fdb_entry(number: int) -> FdbEntry:
    return FdbEntry(DEVICE, mac(number), IPv4Address(f"10.99.0.{number}"))


def neighbour(number: int) -> Neighbour:
    return Neighbour(DEVICE, subnet(number).network_address, mac(number))


def route(number: int) -> Route:
    return Route(subnet(number), subnet(number).network_address, DEVICE, onlink=True)


def peer(number: int) -> tuple[Item, ...]:
    return (fdb_entry(number), neighbour(number), route(number))


def node(number: int = 1, peers: Iterable[int] = ()) -> KernelState:
    items: list[Item] = [FORWARDING, link(number), address(number)]
    for other in peers:
        items += peer(other)
    return KernelState.of(items)


def adding(items: Iterable[Item]) -> list[Operation]:
    return [Operation(Verb.ADD, item) for item in items]


def removing(items: Iterable[Item]) -> list[Operation]:
    return [Operation(Verb.REMOVE, item) for item in items]


async def install(driver: Driver, state: KernelState) -> None:
    """Put it all in place, in the order of adding; nothing may be refused."""
    outcomes = await driver.apply(adding(state))
    assert not any(outcomes), outcomes
    assert await driver.observe(Scope()) == state
