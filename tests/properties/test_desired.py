"""What is desired depends on the policies and the view alone, however it was stated before."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from hypothesis import given
from hypothesis import strategies as st

from overlayd.core.firewall.policy import Firewall, PacketFilter
from overlayd.core.leases.lease import Attributes, Lease
from overlayd.core.network.addresses import Mac, Subnet
from overlayd.core.network.backend import make_view
from overlayd.core.network.config import parse_config
from overlayd.core.network.desired import DesiredState, state_desired
from overlayd.core.network.view import NetworkView, Underlay
from overlayd_backends.vxlan import VxlanBackend

CONFIG = parse_config(b'{"Network":"10.244.0.0/16"}')
BACKEND = VxlanBackend()
FILTER = PacketFilter(Firewall(masquerade=True, source_check=True), BACKEND.requirements())
POLICIES = (BACKEND, FILTER)
NODE = IPv4Address("10.99.0.1")


def lease(third: int, mac: int, host: int, age: int) -> Lease:
    data = f'{{"VNI":1,"VtepMAC":"02:00:00:00:00:{mac:02x}"}}'
    kind = "vxlan" if host else "udp"
    return Lease(Subnet.parse(f"10.244.{third}.0/24"), Attributes((NODE + host,), kind, data), age)


def view(leases: tuple[Lease, ...], address: int = 0) -> NetworkView:
    underlay = Underlay("eth0", NODE + address * 256, (IPv4Network("10.99.0.0/16"),), 1500, NODE)
    return make_view(CONFIG, BACKEND, underlay, Mac(b"\x02\0\0\0\0\xfe"), None, leases, in_sync=True)


LEASES = st.lists(
    st.builds(lease, st.integers(1, 6), st.integers(1, 4), st.integers(0, 3), st.integers(1, 5)),
    max_size=6,
    unique_by=(lambda one: one.subnet, lambda one: one.order),
)


@given(st.lists(st.tuples(LEASES, st.booleans(), st.integers(0, 1)), max_size=8))
def test_what_is_desired_does_not_depend_on_what_was_desired_before(
    steps: list[tuple[list[Lease], bool, int]],
) -> None:
    before: DesiredState | None = None
    kept: dict[Lease, Lease] = {}
    for leases, keep, address in steps:
        present = tuple(kept.setdefault(one, one) if keep else one for one in leases)
        now = view(present, address)
        before = state_desired(POLICIES, now, before)
        assert before == state_desired(POLICIES, now)
        assert before.peers.keys() | before.refused.keys() == {one.subnet for one in leases}


@given(LEASES)
def test_an_unchanged_view_states_no_part_again(leases: list[Lease]) -> None:
    first = state_desired(POLICIES, view(tuple(leases)))
    second = state_desired(POLICIES, view(tuple(leases)), first)
    assert all(second.parts[key] is part for key, part in first.parts.items())
