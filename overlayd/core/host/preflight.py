"""Looking before leaping: what on this host would keep a network from working, judged over gathered facts.

**Overlap.**  The overlay's addresses must be its alone.  In the way stands whatever of the host's has part of
the network, with these exceptions:

- what is ours: all on our devices, and the gateway routes with our protocol number on the underlay;
- a route to just where one of ours leads, which is placed before it;
- a route by a gateway that is wider than the network: like the default route, it yields to our longer ones;
- the pods of this node, which are there before us after a restart: a directly connected prefix inside the
  network, on a bridge (cni0) or a veth (the ptp plugin), that is no wider than one node's subnet or within a
  subnet that this node has published, whatever its length.  That a lease was lost is for others to say.  The
  same prefix on any other kind of device, a physical one or a VPN's, is not overlayd's and stands in the way.

**Port.**  VXLAN devices share a port with one another, if they speak alike, but neither with another program
nor a VNI with one another.  Our own device holds the port after a restart; that is as it should be.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from ipaddress import ip_network

from overlayd.core.host.underlay import HostAddress, HostFacts, HostLink, HostRoute
from overlayd.core.kernel.items import ROUTE_PROTOCOL, VxlanKind
from overlayd.core.network.addresses import IPNetwork, is_within
from overlayd.core.network.view import Leg, Underlay
from overlayd.core.status.problem import Problem

_SAMPLES = 3
"""How many of one interface's prefixes are listed before the rest is only counted."""


@dataclass(frozen=True, slots=True)
class PreflightRequest:
    """The setup that is planned, or in force.

    `legs` are the network by address family.  `port` is the UDP port that the backend needs, None for none; `vni`
    its VXLAN network identifier, None for a backend that is not vxlan; `tun`: it needs a TUN device.  Gateway
    routes with our protocol number are ours on the underlay's interface and on `links`.  `published` are the
    prefixes that this node has given to pods, `covered` where routes of ours lead: these are placed before others.
    """

    legs: tuple[Leg, ...]
    underlay: Underlay
    port: int | None = None
    vni: int | None = None
    tun: bool = False
    links: frozenset[str] = frozenset()
    published: tuple[IPNetwork, ...] = ()
    covered: Container[IPNetwork] = frozenset()


@dataclass(frozen=True, slots=True)
class HostFindings:
    """The results of probing the host.

    `privileged`: its network may be changed.  `has_vxlan`: the kernel knows vxlan devices.  `tun_trouble`: why no
    TUN device can be made, "" if one can.  `port_free`: a UDP socket could be bound to the port; `port_owner`: who
    has it, "" where that can't be seen.  `forwards`: IPv4 packets are forwarded; `can_forward`: or could be.
    """

    privileged: bool = True
    has_vxlan: bool = True
    tun_trouble: str = ""
    port_free: bool = True
    port_owner: str = ""
    forwards: bool = True
    can_forward: bool = True


def find_obstacles(request: PreflightRequest, host: HostFacts, found: HostFindings) -> tuple[Problem, ...]:
    """Name every reason why the request can't be carried out, in the order in which to remedy them."""
    return (
        *_privilege(found),
        *_vxlan(request, found),
        *_tun(request, found),
        *_port(request, host, found),
        *_forwarding(found),
        *find_overlaps(request, host),
    )


def find_overlaps(request: PreflightRequest, host: HostFacts) -> tuple[Problem, ...]:
    """Name what else has part of the network on this host; to be asked at each pass, as it may come at any
    time."""
    return tuple(
        problem
        for leg in request.legs
        for problem in (*_overlap_with_underlay(request, leg), *_overlap_with_host(request, leg, host))
    )


def _privilege(found: HostFindings) -> Iterator[Problem]:
    if not found.privileged:
        yield Problem(
            "not-privileged",
            "this process may not change the host's network",
            "Run it as root, or give it the capability CAP_NET_ADMIN",
        )


def _vxlan(request: PreflightRequest, found: HostFindings) -> Iterator[Problem]:
    if request.vni is not None and not found.has_vxlan:
        yield Problem(
            "vxlan-missing",
            "this kernel has no vxlan devices",
            "Load the module (modprobe vxlan), use a kernel with CONFIG_VXLAN, or set the backend to host-gw",
        )


def _tun(request: PreflightRequest, found: HostFindings) -> Iterator[Problem]:
    if request.tun and found.tun_trouble:
        yield Problem(
            "tun-missing",
            f"no TUN device can be made here: {found.tun_trouble}",
            "Do that, or set the backend to vxlan or host-gw",
        )


def _port(request: PreflightRequest, host: HostFacts, found: HostFindings) -> Iterator[Problem]:
    if request.port is None:
        return
    port = request.port
    tunnels = [(link, link.tunnel) for link in host.links if isinstance(link.tunnel, VxlanKind)]
    on_port = [(link, vxlan) for link, vxlan in tunnels if vxlan.port == port]
    strangers = [(link, vxlan) for link, vxlan in on_port if not link.ours]
    in_the_way = [(link, vxlan) for link, vxlan in strangers if not _can_share(request, vxlan)]
    for link, vxlan in in_the_way:
        yield Problem(
            "vxlan-taken" if vxlan.vni == request.vni else "port-taken",
            f"the vxlan device {link.name} has UDP port {port}"
            + (f" and VNI {request.vni}" if vxlan.vni == request.vni else ""),
            f"Stop what made it and delete it (ip link delete {link.name}), or set another Backend.Port",
        )
    held_by_vxlan = any(link.up for link, _ in on_port if request.vni is not None or link.ours)
    if not found.port_free and not in_the_way and not held_by_vxlan:
        yield Problem(
            "port-taken",
            f"UDP port {port} is taken by {found.port_owner or 'another socket'}",
            "Stop it, or set another Backend.Port"
            if found.port_owner
            else f"See which (ss -ulnp 'sport = :{port}') and stop it, or set another Backend.Port",
        )


def _can_share(request: PreflightRequest, vxlan: VxlanKind) -> bool:
    """Tell whether the kernel lets vxlan devices share a socket if they agree in what they accept
    (VXLAN_F_RCV_FLAGS)."""
    odd = vxlan.gbp or not {"external", "gpe", "remcsumrx"}.isdisjoint(vxlan.extra)
    return request.vni is not None and vxlan.vni != request.vni and not odd


def _forwarding(found: HostFindings) -> Iterator[Problem]:
    if not found.forwards and not found.can_forward:
        yield Problem(
            "forwarding-off",
            "this host does not forward IPv4 packets, and this process may not switch it on",
            "Switch it on: sysctl -w net.ipv4.ip_forward=1",
        )


def _overlap_with_underlay(request: PreflightRequest, leg: Leg) -> Iterator[Problem]:
    network, underlay = leg.network, request.underlay
    inside = [str(prefix) for prefix in underlay.networks if _overlap(network, prefix)]
    inside += [str(ip) for ip in dict.fromkeys((underlay.address, underlay.public_ip)) if ip in network]
    if inside:
        yield Problem(
            "network-overlap",
            f"network {network} overlaps the underlay {underlay.link} ({', '.join(inside)})",
            "Choose another Network (overlayd config set)",
        )


def _overlap_with_host(request: PreflightRequest, leg: Leg, host: HostFacts) -> Iterator[Problem]:
    """Yield one problem for each interface; the underlay's own prefixes are judged already."""
    links = {link.name: link for link in host.links}
    for link in host.links:
        if link.ours:
            continue
        taken: dict[str, str] = {}  # prefix: how to take it away
        for route in host.routes:
            if route.link == link.name and _route_in_the_way(request, leg, route, links):
                via = f" via {route.gateway}" if route.gateway else ""
                taken.setdefault(
                    str(route.destination), f"ip route delete {route.destination}{via} dev {link.name}"
                )
        for address in host.addresses:
            if address.link == link.name and _address_in_the_way(request, leg, address, links):
                text = f"{address.address}/{address.prefixlen}"
                taken.setdefault(text, f"ip address delete {text} dev {link.name}")
        if taken:
            yield _overlap_problem(leg, link, taken)


def _overlap_problem(leg: Leg, link: HostLink, taken: dict[str, str]) -> Problem:
    listed = list(taken)[:_SAMPLES]
    more = f" and {len(taken) - _SAMPLES} more" if len(taken) > _SAMPLES else ""
    command = f"ip link delete {link.name}" if link.tunnel is not None else next(iter(taken.values()))
    return Problem(
        "network-overlap",
        f"network {leg.network} overlaps {', '.join(listed)}{more} on {link.name}, which is not overlayd's",
        f"Choose another Network (overlayd config set), or stop what put it there and remove it ({command})",
    )


def _route_in_the_way(request: PreflightRequest, leg: Leg, route: HostRoute, links: dict[str, HostLink]) -> bool:
    destination = route.destination
    if destination.prefixlen == 0 or not _overlap(leg.network, destination) or destination in request.covered:
        return False
    if route.gateway is not None:
        ours = route.protocol == ROUTE_PROTOCOL and route.link in {request.underlay.link, *request.links}
        return not ours and destination.prefixlen >= leg.network.prefixlen
    if route.link == request.underlay.link:
        return False  # judged with the underlay
    return not _is_of_pods(request, leg, destination, links[route.link])


def _address_in_the_way(
    request: PreflightRequest, leg: Leg, address: HostAddress, links: dict[str, HostLink]
) -> bool:
    if address.address not in leg.network or address.address == request.underlay.address:
        return False
    prefix = ip_network((address.address, address.prefixlen), strict=False)
    return not _is_of_pods(request, leg, prefix, links[address.link])


def _is_of_pods(request: PreflightRequest, leg: Leg, prefix: IPNetwork, link: HostLink) -> bool:
    if link.kind not in ("bridge", "veth"):
        return False
    if any(is_within(prefix, own) for own in request.published):
        return True
    return prefix.prefixlen >= leg.subnet_len and _overlap(leg.network, prefix)


def _overlap(network: IPNetwork, other: IPNetwork) -> bool:
    return network.version == other.version and network.overlaps(other)
