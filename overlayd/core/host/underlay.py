"""Which interface and address of this host carry the overlay: a choice over what the host has.

The rules are flannel's.  The interface is what `--iface` names (an interface, or an address on one); or what
`--iface-regex` fits, an address before a name; or the one by which the kernel would send to `--iface-can-reach`;
or, where nothing was asked for, that of the default route.  Of it the address that was found on the way, else the
one that was chosen until now, else the first global IPv4 address: link-local ones last, a primary one before a
secondary.  `--public-ip` replaces what peers are told, nothing
else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from overlayd.core.kernel.items import TunKind, VxlanKind
from overlayd.core.network.addresses import IPAddress, IPNetwork, Mac
from overlayd.core.network.view import Underlay
from overlayd.core.status.problem import Problem

SAMPLES = 5
"""Addresses that are listed one by one; the rest is counted."""


class UnderlayError(ValueError):
    """No interface or address fits; the text says what there is instead."""


@dataclass(frozen=True, slots=True)
class HostLink:
    """An interface of the host.

    MTU in bytes.  `kind` is the word of `ip -d link`, "" for a physical device, and `tap` for a TAP device.
    `tunnel` tells more of a vxlan or TUN device, whoever made it.  `ours`: a driver of overlayd's declares it.
    """

    index: int
    name: str
    mtu: int
    up: bool
    loopback: bool = False
    kind: str = ""
    mac: Mac | None = None
    tunnel: VxlanKind | TunKind | None = None
    ours: bool = False


@dataclass(frozen=True, slots=True)
class HostAddress:
    """An address on an interface of the host."""

    link: str
    address: IPAddress
    prefixlen: int
    is_global: bool = True
    secondary: bool = False


@dataclass(frozen=True, slots=True)
class HostRoute:
    """A route of the main table; of several nexthops the first.  `protocol` as in linux/rtnetlink.h.  `drops` is
    the kind of a route that lets nothing pass (blackhole, unreachable, prohibit), "" for any other."""

    destination: IPNetwork
    link: str
    gateway: IPAddress | None = None
    metric: int = 0
    protocol: int = 0
    drops: str = ""


@dataclass(frozen=True, slots=True)
class HostFacts:
    """The host's links, addresses and routes now, ours included, each in the kernel's order."""

    links: tuple[HostLink, ...] = ()
    addresses: tuple[HostAddress, ...] = ()
    routes: tuple[HostRoute, ...] = ()


@dataclass(frozen=True, slots=True)
class Matching:
    """Asks for the interface with an address, or else a name, in which the pattern is found anywhere."""

    pattern: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class Reaching:
    """Asks for the interface by which packets to this address leave."""

    address: IPv4Address


InterfaceSelector = str | Matching | Reaching | None
"""What the operator asks for; a string is an interface's name or an IPv4 address on it, None asks for nothing."""


@dataclass(frozen=True, slots=True)
class RouteLookup:
    """The kernel's present way to an address: the interface, and the source address."""

    link: str
    source: IPv4Address | None


def choose_underlay(
    facts: HostFacts,
    pick: InterfaceSelector,
    public_ip: IPv4Address | None,
    way: RouteLookup | None = None,
    present: Underlay | None = None,
) -> Underlay:
    """Choose the underlay by the rules above.

    `way` is the one to the address of a `Reaching`, None if no route leads there.  `present` is the underlay until
    now: its address is kept for as long as the interface has it, so that an address that comes does not take over.
    Raises UnderlayError.
    """
    link, address = _find(facts, pick, way)
    if address is None:
        address = _present_address(facts, link, present) or _first_address(facts, link)
    elif not _is_for_peers(facts, link, address):
        raise UnderlayError(f"peers can't send to {address} on {link.name}; {_inventory(facts)}")
    return Underlay(
        link=link.name,
        address=address,
        networks=_on_link(facts.routes, link),
        mtu=link.mtu,
        public_ip=public_ip or address,
    )


def find_underlay_link(facts: HostFacts, pick: InterfaceSelector, way: RouteLookup | None = None) -> str | None:
    """Find the interface that would be the underlay's, whether or not it has an address now; None if there is
    none."""
    try:
        return _find(facts, pick, way)[0].name
    except UnderlayError:
        return None


def _find(
    facts: HostFacts, pick: InterfaceSelector, way: RouteLookup | None
) -> tuple[HostLink, IPv4Address | None]:
    """Find the interface, and its address where the search was for one."""
    match pick:
        case None:
            return _link_of_default_route(facts), None
        case Matching(pattern):
            return _matching(facts, pattern)
        case Reaching(address):
            return _leading_to(facts, address, way)
        case str(name):
            wanted = _parse_address(name)
            link = _link_by_name(facts, name) if wanted is None else _link_of_address(facts, wanted)
            return link, wanted


def _matching(facts: HostFacts, pattern: re.Pattern[str]) -> tuple[HostLink, IPv4Address | None]:
    candidates = [link for link in facts.links if _is_candidate(facts, link.name)]
    for link in candidates:
        for address in _usable_addresses(facts, link):
            if pattern.search(str(address)):
                return link, address
    named = [link for link in candidates if pattern.search(link.name)]
    if not named:
        raise UnderlayError(f"no interface has an address or a name with {pattern.pattern!r}; {_inventory(facts)}")
    return min(named, key=lambda link: not _usable_addresses(facts, link)), None


def _leading_to(
    facts: HostFacts, target: IPv4Address, way: RouteLookup | None
) -> tuple[HostLink, IPv4Address | None]:
    if way is None:
        raise UnderlayError(f"no route leads to {target}; {_inventory(facts)}")
    link = _link_by_name(facts, way.link)
    if link.loopback:
        raise UnderlayError(f"{target} is this host's own: name an address that other nodes have or are behind")
    on_it = way.source is not None and way.source in _usable_addresses(facts, link)
    return link, way.source if on_it else None


def _is_for_peers(facts: HostFacts, link: HostLink, address: IPv4Address) -> bool:
    return not link.loopback and any(found.address == address and found.is_global for found in facts.addresses)


def _parse_address(name: str) -> IPv4Address | None:
    try:
        return IPv4Address(name)
    except ValueError:
        return None


def _link_by_name(facts: HostFacts, name: str) -> HostLink:
    link = next((link for link in facts.links if link.name == name), None)
    if link is None:
        raise UnderlayError(f"interface {name!r} does not exist; {_inventory(facts)}")
    if link.ours:
        raise UnderlayError(
            f"interface {name!r} belongs to the overlay, which needs one below it; {_inventory(facts)}"
        )
    return link


def _link_of_address(facts: HostFacts, wanted: IPv4Address) -> HostLink:
    found = next((address for address in facts.addresses if address.address == wanted), None)
    if found is None:
        raise UnderlayError(f"no interface has the address {wanted}; {_inventory(facts)}")
    return _link_by_name(facts, found.link)


def _link_of_default_route(facts: HostFacts) -> HostLink:
    defaults = [
        route
        for route in facts.routes
        if route.destination == IPv4Network("0.0.0.0/0") and _is_candidate(facts, route.link)
    ]
    if not defaults:
        raise UnderlayError(
            f"there is no IPv4 default route to tell the interface by: name it (--iface); {_inventory(facts)}"
        )
    return _link_by_name(facts, min(defaults, key=lambda route: route.metric).link)


def _is_candidate(facts: HostFacts, name: str) -> bool:
    return any(link.name == name and not link.loopback and not link.ours for link in facts.links)


def _present_address(facts: HostFacts, link: HostLink, present: Underlay | None) -> IPv4Address | None:
    if present is None or present.link != link.name:
        return None
    return next((address for address in _usable_addresses(facts, link) if address == present.address), None)


def _first_address(facts: HostFacts, link: HostLink) -> IPv4Address:
    usable = _usable_addresses(facts, link)
    if not usable:
        raise UnderlayError(f"interface {link.name!r} has no global IPv4 address; {_inventory(facts)}")
    return usable[0]


def _usable_addresses(facts: HostFacts, link: HostLink) -> list[IPv4Address]:
    """List its global IPv4 addresses: link-local ones last (RFC 3927), primary ones before secondary ones."""
    usable = [
        ((address.address.is_link_local, address.secondary), address.address)
        for address in facts.addresses
        if address.link == link.name and address.is_global and isinstance(address.address, IPv4Address)
    ]
    return [address for _, address in sorted(usable, key=lambda entry: entry[0])]


def _on_link(routes: Sequence[HostRoute], link: HostLink) -> tuple[IPNetwork, ...]:
    """List prefixes whose hosts are reached without a gateway.  A default route without one is not among them."""
    found = {
        route.destination
        for route in routes
        if route.link == link.name and route.gateway is None and route.destination.prefixlen > 0
    }
    return tuple(
        sorted(found, key=lambda network: (network.version, network.network_address.packed, network.prefixlen))
    )


def _inventory(facts: HostFacts) -> str:
    """List the possible interfaces: `there are eth0 (10.0.0.5/24), eth1 (no address)`."""
    parts = []
    for link in facts.links:
        if not _is_candidate(facts, link.name):
            continue
        own = [
            f"{address.address}/{address.prefixlen}"
            for address in facts.addresses
            if address.link == link.name and address.address.version == 4
        ]
        parts.append(f"{link.name} ({', '.join(own) or 'no IPv4 address'})")
    return f"there are {', '.join(parts)}" if parts else "there is no interface but the loopback"


def find_underlay_problems(facts: HostFacts, underlay: Underlay) -> tuple[Problem, ...]:
    """Name what keeps every packet from leaving by the underlay's interface."""
    link = next((link for link in facts.links if link.name == underlay.link), None)
    if link is None or link.up:
        return ()
    return (
        Problem(
            "underlay-down",
            f"the interface {underlay.link}, which carries the overlay, is down: no peer can be reached",
            f"Set it up: ip link set {underlay.link} up",
        ),
    )


def find_suspects(facts: HostFacts, addresses: Iterable[IPAddress]) -> tuple[IPAddress, ...]:
    """Find addresses that the main table leads nowhere.

    They are only suspects, as rules may lead to other tables: the kernel has to be asked for each of them.
    """
    by_length: dict[tuple[int, int], dict[int, HostRoute]] = {}
    for route in facts.routes:
        prefix = route.destination
        shift = prefix.max_prefixlen - prefix.prefixlen
        first = by_length.setdefault((prefix.version, shift), {})
        first.setdefault(int(prefix.network_address) >> shift, route)
    shifts = sorted(by_length)
    found = []
    for address in dict.fromkeys(addresses):
        number = int(address)
        ways = (by_length[key].get(number >> key[1]) for key in shifts if key[0] == address.version)
        way = next(filter(None, ways), None)
        if way is None or way.drops:
            found.append(address)
    return tuple(found)


def name_unreachable(addresses: Sequence[IPAddress], unreachable: Mapping[IPAddress, str]) -> tuple[Problem, ...]:
    """Name the peers' underlay addresses to which the kernel sends nothing, with its reason."""
    by_reason: dict[str, list[IPAddress]] = {}
    for address in addresses:
        if address in unreachable:
            by_reason.setdefault(unreachable[address], []).append(address)
    return tuple(_unreachable(why, lost) for why, lost in sorted(by_reason.items()))


def _unreachable(why: str, addresses: list[IPAddress]) -> Problem:
    listed = ", ".join(map(str, addresses[:SAMPLES]))
    more = f" and {len(addresses) - SAMPLES} more" if len(addresses) > SAMPLES else ""
    return Problem(
        "peer-unreachable",
        f"the kernel sends nothing to {listed}{more}: {why}",
        f"See which route it takes: ip route get {addresses[0]}",
    )
