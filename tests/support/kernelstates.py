"""Strategies for kernel states of a small world: few names and addresses, so that they collide often."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from hypothesis import strategies as st

from overlayd.core.firewall.iptables import ForwardRules, Variant
from overlayd.core.firewall.nftables import TABLE_KEY, NftChain, NftTable, Sender
from overlayd.core.kernel.datapath import Datapath, Encap
from overlayd.core.kernel.items import (
    Address,
    FdbEntry,
    Forwarding,
    Item,
    KernelState,
    Link,
    Neighbour,
    OnLink,
    Route,
    TunKind,
    VxlanKind,
)
from overlayd.core.network.addresses import Family, Mac

TUN = "ovl.udp"
names = st.sampled_from(["ovl.1", "ovl.2"])
macs = st.sampled_from([Mac(bytes([2, 0, 0, 0, 0, n])) for n in range(4)])
subnets = st.sampled_from([IPv4Network((0x0AF40000 + 256 * n, 24)) for n in range(1, 5)])
public_ips = st.sampled_from([IPv4Address(f"10.99.0.{n}") for n in range(1, 5)])
tunnels = subnets.map(lambda subnet: subnet.network_address)

vxlans = st.builds(
    VxlanKind,
    vni=st.sampled_from([1, 2]),
    local=public_ips,
    underlay=st.sampled_from(["eth0", "eth1"]),
    port=st.sampled_from([8472, 4789]),
)
mtus = st.sampled_from([1450, 1400])
links = st.builds(Link, names, vxlans, macs, mtus, st.booleans())
datapaths = st.builds(
    Datapath, st.just(TUN), public_ips, st.sampled_from([8285, 8286]), subnets.map(lambda s: (s,))
)
encaps = st.builds(Encap, st.just(TUN), subnets, public_ips, st.just(8285))
nft_items = st.one_of(
    st.builds(NftTable, st.sampled_from([24, 26])),
    st.builds(
        NftChain,
        st.sampled_from(["one", "two"]),
        st.just("type filter hook input priority 0; policy accept;"),
        st.just(()) | st.just(("drop",)),
    ),
    st.builds(Sender, public_ips, subnets),
)
forward_rules = st.builds(
    ForwardRules, st.sampled_from(Variant), st.just(("-s 10.244.0.0/16",)), st.just("") | st.just("behind others")
)
items: st.SearchStrategy[Item] = st.one_of(
    nft_items,
    st.just(NftTable(24, "holds chain foo")),
    st.just(Forwarding(Family.IPV4)),
    forward_rules,
    links,
    st.builds(
        Link, st.just(TUN), st.sampled_from([TunKind(), TunKind(("multi_queue",))]), st.none(), mtus, st.booleans()
    ),
    datapaths,
    encaps,
    st.builds(Address, names | st.just(TUN), tunnels, st.just(32)),
    st.builds(FdbEntry, names, macs, public_ips),
    st.builds(Neighbour, names, tunnels, macs),
    st.builds(Route, subnets, tunnels, names, st.just(True)),
    st.builds(Route, subnets, public_ips, st.just("eth0")),
    st.builds(Route, subnets, st.none(), st.just(TUN)),
)


def _keyed(found: list[Item]) -> KernelState:
    return KernelState.of({item.key: item for item in found}.values())


def _possible(state: KernelState) -> KernelState:
    """Without what stands on a device of ours or in a table that is not there, or in a datapath that does not
    run."""
    present = {item.name for item in state.items if isinstance(item, Link)} | {"eth0"}
    running = {item.link for item in state.items if isinstance(item, Datapath)} & present
    has_table = TABLE_KEY in state.by_key

    def is_possible(item: Item) -> bool:
        match item:
            case Forwarding() | ForwardRules() | Link() | NftTable():
                return True
            case NftChain() | Sender():
                return has_table
            case Encap():
                return item.link in running
            case OnLink():
                return item.link in present
            case _:
                raise NotImplementedError(item)

    return KernelState.of(filter(is_possible, state.items))


observations = st.lists(items, max_size=14).map(_keyed).map(_possible)
"""What may be found in a kernel, however it came about."""


@st.composite
def vxlan_wishes(draw: st.DrawFn) -> KernelState:
    """What the vxlan backend may ask for: every route has its neighbour, every neighbour its FDB entry, all have
    their link."""
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


@st.composite
def udp_wishes(draw: st.DrawFn) -> KernelState:
    """What the udp backend may ask for: every encap has its datapath, all have their link, no two prefixes
    overlap."""
    wholes_and_halves = subnets.flatmap(lambda whole: st.sampled_from([whole, *whole.subnets()]))
    disjoint: list[IPv4Network] = []
    for prefix in draw(st.lists(wholes_and_halves, max_size=6)):
        if not any(prefix.overlaps(other) for other in disjoint):
            disjoint.append(prefix)
    has_lease = draw(st.booleans())
    own = (disjoint.pop(),) if disjoint and has_lease else ()
    wanted: list[Item] = [Forwarding(Family.IPV4), Link(TUN, TunKind(), None, draw(mtus))]
    wanted.append(Datapath(TUN, draw(public_ips), draw(st.sampled_from([8285, 8286])), own))
    wanted += [Address(TUN, prefix.network_address, 32) for prefix in own]
    wanted.append(Route(IPv4Network("10.244.0.0/16"), None, TUN))
    return _keyed([*wanted, *[Encap(TUN, prefix, draw(public_ips), 8285) for prefix in disjoint]])


def firewalls() -> st.SearchStrategy[KernelState]:
    """What may be asked of nft beside: nothing, or what stands in a table that is asked for."""
    inside = st.lists(nft_items, max_size=5).map(lambda found: _keyed([NftTable(24), *found]))
    return st.just(KernelState()) | inside


def desired_states() -> st.SearchStrategy[KernelState]:
    """What a backend may ask for, and the firewall with it."""
    return st.builds(KernelState.__or__, vxlan_wishes() | udp_wishes(), firewalls())
