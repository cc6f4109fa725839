"""Which interface and address of this host carry the overlay: a choice over what the host has.

The rules are flannel's: what `--iface` names (an interface, or an address on one), else the interface of the
default route; of it the first global IPv4 address, a primary one before a secondary; `--public-ip` replaces
what peers are told, nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from overlayd.core.kernel import Tun, Vxlan
from overlayd.core.model import IPAddress, IPNetwork, Mac, Underlay

_VXLAN = re.compile(r"ovl6?\.\d+")
_TUN = re.compile(r"ovl\.udp")


def is_our_device(name: str, tunnel: Vxlan | Tun | None) -> bool:
    """Whether a device is overlayd's: of kind vxlan and named `ovl.<n>` or `ovl6.<n>`, or a TUN device named
    `ovl.udp`.  One of these names on any other kind of device is somebody else's."""
    match tunnel:
        case Vxlan():
            return _VXLAN.fullmatch(name) is not None
        case Tun():
            return _TUN.fullmatch(name) is not None
        case None:
            return False


def is_our_device_name(name: str) -> bool:
    """Whether a device of this name is overlayd's, if it is of the kind that goes with it."""
    return any(pattern.fullmatch(name) for pattern in (_VXLAN, _TUN))


class UnderlayError(ValueError):
    """No interface or address fits; the text says what there is instead."""


@dataclass(frozen=True, slots=True)
class HostLink:
    """An interface of the host.  MTU in bytes; `kind` as `ip -d link` names it, "" for a physical device;
    `tunnel` is set for the kinds that overlayd makes, whoever made this one."""

    index: int
    name: str
    mtu: int
    up: bool
    loopback: bool = False
    kind: str = ""
    mac: Mac | None = None
    tunnel: Vxlan | Tun | None = None


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
    """A unicast route of the main table; of several nexthops the first.  `protocol` as in linux/rtnetlink.h."""

    destination: IPNetwork
    link: str
    gateway: IPAddress | None = None
    metric: int = 0
    protocol: int = 0


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What stands in the host's network now, ours among it, each in the kernel's order."""

    links: tuple[HostLink, ...]
    addresses: tuple[HostAddress, ...]
    routes: tuple[HostRoute, ...]


def choose_underlay(facts: HostFacts, iface: str | None, public_ip: IPv4Address | None) -> Underlay:
    """The underlay by the rules above.  Raises UnderlayError."""
    wanted = _parse_address(iface)
    if wanted is not None:
        link, address = _link_of_address(facts, wanted), wanted
        if not _is_for_peers(facts, link, address):
            raise UnderlayError(f"peers can't send to {address} on {link.name}; {_inventory(facts)}")
    else:
        link = _link_of_default_route(facts) if iface is None else _link_by_name(facts, iface)
        address = _first_address(facts, link)
    return Underlay(
        link=link.name,
        address=address,
        networks=_on_link(facts.routes, link),
        mtu=link.mtu,
        public_ip=public_ip or address,
    )


def find_underlay_link(facts: HostFacts, iface: str | None) -> str | None:
    """The interface that would be the underlay's, whether or not it has an address now; None if there is none."""
    try:
        wanted = _parse_address(iface)
        if wanted is not None:
            return _link_of_address(facts, wanted).name
        return (_link_of_default_route(facts) if iface is None else _link_by_name(facts, iface)).name
    except UnderlayError:
        return None


def _is_for_peers(facts: HostFacts, link: HostLink, address: IPv4Address) -> bool:
    return not link.loopback and any(found.address == address and found.is_global for found in facts.addresses)


def _parse_address(iface: str | None) -> IPv4Address | None:
    try:
        return IPv4Address(iface) if iface else None
    except ValueError:
        return None


def _link_by_name(facts: HostFacts, name: str) -> HostLink:
    link = next((link for link in facts.links if link.name == name), None)
    if link is None:
        raise UnderlayError(f"interface {name!r} does not exist; {_inventory(facts)}")
    if is_our_device_name(name):
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
    return any(link.name == name and not link.loopback for link in facts.links) and not is_our_device_name(name)


def _first_address(facts: HostFacts, link: HostLink) -> IPv4Address:
    usable = [
        (address.secondary, address.address)
        for address in facts.addresses
        if address.link == link.name and address.is_global and isinstance(address.address, IPv4Address)
    ]
    if not usable:
        raise UnderlayError(f"interface {link.name!r} has no global IPv4 address; {_inventory(facts)}")
    return min(usable, key=lambda entry: entry[0])[1]


def _on_link(routes: Sequence[HostRoute], link: HostLink) -> tuple[IPNetwork, ...]:
    """Where neighbours are reached without a gateway.  A default route without one says no such thing."""
    found = {
        route.destination
        for route in routes
        if route.link == link.name and route.gateway is None and route.destination.prefixlen > 0
    }
    return tuple(
        sorted(found, key=lambda network: (network.version, network.network_address.packed, network.prefixlen))
    )


def _inventory(facts: HostFacts) -> str:
    """`there are eth0 (10.0.0.5/24), eth1 (no address)`: what could have been meant."""
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
