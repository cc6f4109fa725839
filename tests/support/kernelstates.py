"""Strategies for kernel states of a small world: few names and addresses, so that they collide often."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from hypothesis import strategies as st

from overlayd.core.kernel import (
    Address,
    FdbEntry,
    Forwarding,
    Item,
    KernelState,
    Link,
    Neighbour,
    Route,
    Vxlan,
)
from overlayd.core.model import Family, Mac

names = st.sampled_from(["ovl.1", "ovl.2"])
macs = st.sampled_from([Mac(bytes([2, 0, 0, 0, 0, n])) for n in range(4)])
subnets = st.sampled_from([IPv4Network((0x0AF40000 + 256 * n, 24)) for n in range(1, 5)])
public_ips = st.sampled_from([IPv4Address(f"10.99.0.{n}") for n in range(1, 5)])
tunnels = subnets.map(lambda subnet: subnet.network_address)

vxlans = st.builds(
    Vxlan,
    vni=st.sampled_from([1, 2]),
    local=public_ips,
    underlay=st.sampled_from(["eth0", "eth1"]),
    port=st.sampled_from([8472, 4789]),
)
links = st.builds(Link, names, vxlans, macs, st.sampled_from([1450, 1400]), st.booleans())
items: st.SearchStrategy[Item] = st.one_of(
    st.just(Forwarding(Family.IPV4)),
    links,
    st.builds(Address, names, tunnels, st.just(32)),
    st.builds(FdbEntry, names, macs, public_ips),
    st.builds(Neighbour, names, tunnels, macs),
    st.builds(Route, subnets, tunnels, names, st.just(True)),
    st.builds(Route, subnets, public_ips, st.just("eth0")),
)


def _keyed(found: list[Item]) -> KernelState:
    return KernelState.of({item.key: item for item in found}.values())


def _possible(state: KernelState) -> KernelState:
    """Without what stands on a device of ours that is not there."""
    present = {item.name for item in state.items if isinstance(item, Link)} | {"eth0"}
    return KernelState.of(
        item for item in state.items if isinstance(item, Forwarding | Link) or item.link in present
    )


observations = st.lists(items, max_size=14).map(_keyed).map(_possible)
"""What may be found in a kernel, however it came about."""


@st.composite
def wishes(draw: st.DrawFn) -> KernelState:
    """What a backend may ask for: every route has its neighbour, every neighbour its FDB entry, all have their
    link."""
    name = draw(names)
    wanted: list[Item] = [draw(links.map(lambda link: Link(name, link.kind, link.mac, link.mtu)))]
    wanted.append(Forwarding(Family.IPV4))
    if draw(st.booleans()):
        wanted.append(Address(name, draw(tunnels), 32))
    for subnet, mac in draw(st.dictionaries(subnets, macs, max_size=4)).items():
        public = draw(public_ips)
        if draw(st.booleans()):
            wanted.append(Route(subnet, public, "eth0"))
            continue
        wanted += [
            FdbEntry(name, mac, public),
            Neighbour(name, subnet.network_address, mac),
            Route(subnet, subnet.network_address, name, onlink=True),
        ]
    return _keyed(wanted)
