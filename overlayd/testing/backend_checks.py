"""What every backend promises, as checks that its author runs, over an example of a network.

Each check is a plain function of one argument that raises AssertionError: see `overlayd.testing.contracts`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from overlayd.core.kernel.driver import DevicePattern, is_our_device
from overlayd.core.kernel.items import Item, KernelState, Link
from overlayd.core.leases.lease import Lease
from overlayd.core.network.addresses import Family, IPAddress, Mac, Subnet
from overlayd.core.network.backend import Backend, PeerRefusedError, make_view
from overlayd.core.network.config import parse_config
from overlayd.core.network.desired import state_desired
from overlayd.core.network.view import NetworkView, Underlay

UNDERLAY = Underlay(
    "eth0", IPv4Address("10.99.0.1"), (IPv4Network("10.99.0.0/16"),), 1500, IPv4Address("10.99.0.1")
)
STRANGERS: Sequence[IPAddress] = (
    *(IPv4Address(text) for text in ("0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255")),
    IPv6Address("2001:db8::7"),
)
"""Addresses to which nothing can be sent over IPv4."""


@dataclass(frozen=True)
class BackendCase:
    """A backend as parsed, and all that its drivers declare; `underlay` is this node's."""

    backend: Backend
    kinds: frozenset[type[Item]]
    devices: Sequence[DevicePattern]
    underlay: Underlay = UNDERLAY

    def lease(self, number: int) -> Lease:
        """Return that of node `number`, from 1 to 250; this node is the first."""
        address = self.underlay.address + number - 1
        at = replace(self.underlay, address=address, public_ip=address)
        mac = Mac(bytes([2, 0, 0, 0, 0, number]))
        attributes = replace(self.backend.advertise(at, mac), node_id=f"id{number}", node_name=f"node{number}")
        return Lease(Subnet((IPv4Network(f"10.244.{number}.0/24"),)), attributes, number)

    def view(self, peers: Iterable[int] = (), *, has_lease: bool = True) -> NetworkView:
        """Return this node's view with these peers, and with or without a subnet of its own."""
        config = parse_config(json.dumps({"Network": "10.244.0.0/16", "Backend": {"Type": self.backend.kind}}))
        own = self.lease(1) if has_lease else None
        leases = tuple(map(self.lease, peers))
        mac = Mac(bytes([2, 0, 0, 0, 0, 1]))
        return make_view(config, self.backend, self.underlay, mac, own, leases, in_sync=True)

    def state(self, peers: Iterable[int] = (), *, has_lease: bool = True) -> KernelState:
        """Return the desired state then."""
        return state_desired([self.backend], self.view(peers, has_lease=has_lease)).kernel

    def states(self) -> Sequence[KernelState]:
        """Return some that differ: before a lease, with peers that come, change and go."""
        return (self.state(has_lease=False), self.state(), self.state((2, 3)), self.state((3, 4, 5)))


def check_it_is_a_function_of_its_arguments(case: BackendCase) -> None:
    view = case.view((2, 3))
    for _ in range(2):
        assert KernelState.of(case.backend.base(view)) == KernelState.of(case.backend.base(view))
        for lease in view.peers:
            once, again = case.backend.peer(view, lease), case.backend.peer(view, lease)
            assert KernelState.of(once) == KernelState.of(again), f"{lease.subnet} is not stated alike twice"


def check_it_can_be_parsed_without_options(case: BackendCase) -> None:
    assert type(case.backend).parse({}).kind == case.backend.kind
    assert case.backend.families, "it carries no address family"


def check_a_driver_has_each_item_and_each_device(case: BackendCase) -> None:
    """Check that a driver owns each of them: else it could not be applied, or the next run would not know it."""
    for state in case.states():
        for item in state:
            assert type(item) in case.kinds, f"no driver has {item}"
            if isinstance(item, Link):
                ours = is_our_device(case.devices, item.name, item.kind.word)
                assert ours, f"no driver declares the device of {item}"


def check_pods_get_the_mtu_that_the_device_has(case: BackendCase) -> None:
    view = case.view()
    for leg in view.legs:
        assert 0 < leg.mtu <= case.underlay.mtu, f"an MTU of {leg.mtu} over one of {case.underlay.mtu}"
        for item in case.state():
            if isinstance(item, Link) and item.name == leg.device:
                assert item.mtu >= leg.mtu, f"{item} has less than {leg.mtu}"


def check_every_peer_is_served(case: BackendCase) -> None:
    desired = state_desired([case.backend], case.view(range(2, 12)))
    assert not desired.refused, f"refused: {desired.refused}"
    assert len(desired.peers) == 10
    assert all(part.items for part in desired.peers.values()), "a peer needs nothing at all"


def check_a_peer_that_can_not_be_served_is_refused(case: BackendCase) -> None:
    """Check that each lease that can't be served raises PeerRefusedError, with the end of a sentence about the
    peer."""
    view, good = case.view(), case.lease(2)
    attributes = good.attributes
    bad = [
        replace(attributes, backend="another"),
        replace(attributes, public_ips=()),
        replace(attributes, public_ips=(case.underlay.public_ip,)),
        *(replace(attributes, public_ips=(address,)) for address in STRANGERS),
    ]
    leases = [replace(good, attributes=each) for each in bad]
    if case.backend.families == {Family.IPV4}:
        leases.append(replace(good, subnet=Subnet((IPv6Network("fd00:2::/64"),))))
    for lease in leases:
        assert _find_refusal(case.backend, view, lease), f"{lease} is served, or refused without a reason"
    for data in ("", "{", "[]", '{"VNI": []}', "null", '"' * 5000):  # served by a backend that reads no data
        _find_refusal(case.backend, view, replace(good, attributes=replace(attributes, backend_data=data)))


def _find_refusal(backend: Backend, view: NetworkView, lease: Lease) -> str:
    try:
        list(backend.peer(view, lease))
    except PeerRefusedError as reason:
        return str(reason)
    return ""


BackendCheck = Callable[[BackendCase], None]
BACKEND_CHECKS: Sequence[BackendCheck] = (
    check_it_can_be_parsed_without_options,
    check_it_is_a_function_of_its_arguments,
    check_a_driver_has_each_item_and_each_device,
    check_pods_get_the_mtu_that_the_device_has,
    check_every_peer_is_served,
    check_a_peer_that_can_not_be_served_is_refused,
)
