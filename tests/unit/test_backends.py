"""What each backend asks of the kernel, as the lines that `ip` would print; and which options it takes."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from overlayd.core.leases.lease import Attributes, Lease
from overlayd.core.network.addresses import Family, Mac, Subnet
from overlayd.core.network.backend import Backend, BackendOptionError, HostRequirements, make_view, overhead
from overlayd.core.network.config import parse_config
from overlayd.core.network.desired import DesiredState, state_desired
from overlayd.core.network.view import Underlay
from overlayd.plugins import load_backends
from overlayd_backends.hostgw import HostGwBackend
from overlayd_backends.udp.backend import UdpBackend
from overlayd_backends.vxlan import VxlanBackend

UNDERLAY = Underlay(
    "eth0", IPv4Address("10.99.0.1"), (IPv4Network("10.99.0.0/24"),), 1500, IPv4Address("10.99.0.1")
)
MAC = Mac.parse("02:00:00:00:00:01")


def lease(third: int, attributes: Attributes) -> Lease:
    return Lease(Subnet.parse(f"10.244.{third}.0/24"), attributes, third)


def vxlan_peer(number: int, public_ip: str | None = None, data: str | None = None) -> Lease:
    told = data or f'{{"VNI":1,"VtepMAC":"02:00:00:00:00:0{number}"}}'
    public = IPv4Address(public_ip or f"10.99.0.{number}")
    return lease(number, Attributes((public,), "vxlan", told))


def desired_by(backend: Backend, *peers: Lease, own: bool = True) -> DesiredState:
    config = parse_config(b'{"Network":"10.244.0.0/16"}')
    mine = lease(1, Attributes((UNDERLAY.public_ip,), "vxlan")) if own else None
    return state_desired([backend], make_view(config, backend, UNDERLAY, MAC, mine, peers, in_sync=True))


def device_of(backend: Backend) -> tuple[str, int]:
    device = backend.device(Family.IPV4, UNDERLAY)
    return device.name, device.mtu


def test_vxlan_in_full() -> None:
    desired = desired_by(VxlanBackend(), vxlan_peer(2), vxlan_peer(3))
    assert str(desired.kernel).splitlines() == [
        "forwarding ipv4 on",
        "link ovl.1 vxlan id 1 local 10.99.0.1 dev eth0 dstport 8472 nolearning "
        "address 02:00:00:00:00:01 mtu 1450 up",
        "address 10.244.1.0/32 dev ovl.1",
        "fdb 02:00:00:00:00:02 dev ovl.1 dst 10.99.0.2 self permanent",
        "fdb 02:00:00:00:00:03 dev ovl.1 dst 10.99.0.3 self permanent",
        "neighbour 10.244.2.0 lladdr 02:00:00:00:00:02 dev ovl.1 permanent",
        "neighbour 10.244.3.0 lladdr 02:00:00:00:00:03 dev ovl.1 permanent",
        "route 10.244.2.0/24 via 10.244.2.0 dev ovl.1 proto 111 onlink",
        "route 10.244.3.0/24 via 10.244.3.0 dev ovl.1 proto 111 onlink",
    ]
    assert (device_of(VxlanBackend()), desired.refused) == (("ovl.1", 1450), {})


def test_vxlan_before_it_has_a_lease_has_a_device_without_an_address() -> None:
    desired = desired_by(VxlanBackend(), own=False)
    assert [str(item).split()[0] for item in desired.kernel] == ["forwarding", "link"]


def test_vxlan_options_reach_the_device() -> None:
    backend = VxlanBackend.parse({"vni": 7, "port": 4789, "mtu": 1400, "gbp": True, "learning": True})
    [_, link, _] = desired_by(backend).kernel
    assert str(link) == (
        "link ovl.7 vxlan id 7 local 10.99.0.1 dev eth0 dstport 4789 learning gbp "
        "address 02:00:00:00:00:01 mtu 1350 up"
    )
    assert device_of(VxlanBackend(mtu=9000)) == ("ovl.1", 1450), "never more than the interface carries"
    assert backend.requirements() == HostRequirements(4789, 7)


def test_direct_routing_goes_by_the_underlay_where_it_can() -> None:
    direct = VxlanBackend.parse({"directrouting": True})
    desired = desired_by(direct, vxlan_peer(2), vxlan_peer(3, "10.98.0.3"))
    peers = {str(subnet): str(state).splitlines() for subnet, state in desired.peers.items()}
    assert peers["10.244.2.0/24"] == ["route 10.244.2.0/24 via 10.99.0.2 dev eth0 proto 111"]
    assert len(peers["10.244.3.0/24"]) == 3


def test_the_advertised_record_is_flannels() -> None:
    told = VxlanBackend().advertise(UNDERLAY, MAC)
    assert told.backend_data == '{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}'
    assert (told.backend, told.public_ips) == ("vxlan", (UNDERLAY.public_ip,))
    assert HostGwBackend().advertise(UNDERLAY, MAC) == Attributes((UNDERLAY.public_ip,), "host-gw")


def test_of_two_peers_with_one_mac_the_older_is_served_on_every_node() -> None:
    twin = vxlan_peer(3, data='{"VNI":1,"VtepMAC":"02:00:00:00:00:02"}')
    for peers in ((vxlan_peer(2), twin), (twin, vxlan_peer(2))):
        desired = desired_by(VxlanBackend(), *peers)
        assert list(desired.peers) == [Subnet.parse("10.244.2.0/24")]
        assert desired.refused == {
            twin.subnet: "needs fdb 02:00:00:00:00:02 dev ovl.1 dst 10.99.0.3 self permanent, "
            "and 10.244.2.0/24 needs fdb 02:00:00:00:00:02 dev ovl.1 dst 10.99.0.2 self permanent"
        }


@pytest.mark.parametrize(
    ("peer", "reason"),
    [
        (vxlan_peer(2, data="{}"), "no usable VTEP"),
        (vxlan_peer(2, data="[]"), "no usable VTEP"),
        (vxlan_peer(2, data='{"VtepMAC":"02:00:00:00:00:02","VNI":"1"}'), "no usable VTEP"),
        (vxlan_peer(2, data='{"VtepMAC":"03:00:00:00:00:02"}'), "not a unicast"),
        (vxlan_peer(2, data='{"VtepMAC":"00:00:00:00:00:00"}'), "not a unicast"),
        (vxlan_peer(2, data='{"VNI":2,"VtepMAC":"02:00:00:00:00:02"}'), "speaks VNI 2, this node VNI 1"),
        (vxlan_peer(2, data='{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}'), "that of this node"),
        (vxlan_peer(2, "10.99.0.1"), "this node's own"),
        (vxlan_peer(2, "0.0.0.0"), "no host's address"),
        (vxlan_peer(2, "224.0.0.1"), "no host's address"),
        (replace(vxlan_peer(2), attributes=Attributes((), "vxlan")), "no IPV4 public IP"),
        (replace(vxlan_peer(2), attributes=Attributes((UNDERLAY.public_ip,), "udp")), "runs backend 'udp'"),
        (replace(vxlan_peer(2), attributes=Attributes((UNDERLAY.public_ip,))), "names no backend"),
        (replace(vxlan_peer(2), subnet=Subnet.parse("fd00::/64")), "no IPv4 subnet"),
    ],
)
def test_a_peer_that_vxlan_cannot_serve_is_refused_alone(peer: Lease, reason: str) -> None:
    desired = desired_by(VxlanBackend(), peer, vxlan_peer(9))
    assert list(desired.peers) == [Subnet.parse("10.244.9.0/24")]
    assert reason in desired.refused[peer.subnet]


def test_host_gw_in_full() -> None:
    near, far = lease(2, Attributes((IPv4Address("10.99.0.2"),), "host-gw")), vxlan_peer(4)
    off_link = lease(3, Attributes((IPv4Address("10.98.0.3"),), "host-gw"))
    desired = desired_by(HostGwBackend(), near, off_link, far)
    assert str(desired.kernel).splitlines() == [
        "forwarding ipv4 on",
        "route 10.244.2.0/24 via 10.99.0.2 dev eth0 proto 111",
    ]
    assert device_of(HostGwBackend()) == ("eth0", 1500)
    assert "not on the link of eth0" in desired.refused[off_link.subnet]
    assert "runs backend 'vxlan'" in desired.refused[far.subnet]


def test_udp_in_full() -> None:
    flannels = lease(3, Attributes((IPv4Address("10.98.0.3"),)))
    desired = desired_by(
        UdpBackend(), lease(2, Attributes((IPv4Address("10.99.0.2"),), "udp")), flannels, vxlan_peer(4)
    )
    assert str(desired.kernel).splitlines() == [
        "forwarding ipv4 on",
        "link ovl.udp tun persist mtu 1472 up",
        "address 10.244.1.0/32 dev ovl.udp",
        "datapath ovl.udp local 10.99.0.1 port 8285 own 10.244.1.0/24",
        "encap 10.244.2.0/24 dev ovl.udp to 10.99.0.2 port 8285",
        "encap 10.244.3.0/24 dev ovl.udp to 10.98.0.3 port 8285",
        "route 10.244.0.0/16 dev ovl.udp proto 111",
    ]
    assert device_of(UdpBackend()) == ("ovl.udp", 1472)
    assert desired.refused == {Subnet.parse("10.244.4.0/24"): "runs backend 'vxlan', this node 'udp'"}
    assert UdpBackend().advertise(UNDERLAY, MAC) == Attributes((UNDERLAY.public_ip,), "udp")
    assert UdpBackend().requirements() == HostRequirements(8285, tun=True)


def test_udp_before_it_has_a_lease_takes_nothing_in() -> None:
    kernel = desired_by(UdpBackend(), own=False).kernel
    assert [str(item).split()[0] for item in kernel] == ["forwarding", "link", "datapath", "route"]
    assert "datapath ovl.udp local 10.99.0.1 port 8285 own none" in str(kernel)


def test_udp_options_reach_the_device_and_the_entries() -> None:
    backend = UdpBackend.parse({"port": 9000, "mtu": 1400})
    kernel = str(desired_by(backend, lease(2, Attributes((IPv4Address("10.99.0.2"),), "udp"))).kernel)
    assert "mtu 1372" in kernel
    assert "to 10.99.0.2 port 9000" in kernel
    assert "local 10.99.0.1 port 9000" in kernel


@pytest.mark.parametrize(
    ("peer", "reason"),
    [
        (lease(2, Attributes((IPv4Address("10.99.0.2"),), "host-gw")), "runs backend 'host-gw', this node 'udp'"),
        (lease(2, Attributes((UNDERLAY.public_ip,), "udp")), "this node's own"),
        (lease(2, Attributes((IPv4Address("127.0.0.1"),))), "no host's address"),
        (lease(2, Attributes(())), "no IPV4 public IP"),
    ],
)
def test_a_peer_that_udp_cannot_serve_is_refused_alone(peer: Lease, reason: str) -> None:
    desired = desired_by(UdpBackend(), peer, lease(9, Attributes((IPv4Address("10.99.0.9"),))))
    assert list(desired.peers) == [Subnet.parse("10.244.9.0/24")]
    assert reason in desired.refused[peer.subnet]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"port": 0}, "Backend.Port: 0 is not a whole number from 1 to 65535"),
        ({"mtu": 95}, "Backend.MTU: 95 leaves no room for packets: it must be at least 96"),
        ({"mtu": "1500"}, "Backend.MTU"),
    ],
)
def test_a_wrong_option_of_udp_is_named(options: dict[str, object], said: str) -> None:
    with pytest.raises(BackendOptionError) as raised:
        UdpBackend.parse(options)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"vni": 0}, "Backend.VNI: 0 is not a whole number from 1 to 16777215"),
        ({"vni": 1 << 24}, "Backend.VNI"),
        ({"vni": True}, "Backend.VNI"),
        ({"port": 65536}, "Backend.Port"),
        ({"mtu": 100}, "Backend.MTU: 100 leaves no room"),
        ({"gbp": 1}, "Backend.GBP: 1 is neither true nor false"),
        ({"directrouting": "yes"}, "Backend.DirectRouting"),
    ],
)
def test_a_wrong_option_is_named_with_what_would_be_right(options: dict[str, object], said: str) -> None:
    with pytest.raises(BackendOptionError) as raised:
        VxlanBackend.parse(options)
    assert said in str(raised.value)


def test_overheads() -> None:
    assert (overhead(VxlanBackend(), Family.IPV4), overhead(VxlanBackend(), Family.IPV6)) == (50, 70)
    assert overhead(HostGwBackend(), Family.IPV4) == 0
    assert (overhead(UdpBackend(), Family.IPV4), overhead(UdpBackend(), Family.IPV6)) == (28, 48)


def test_all_are_found_by_their_entry_points() -> None:
    found: dict[str, type[Backend]] = dict(load_backends())
    assert found == {"vxlan": VxlanBackend, "host-gw": HostGwBackend, "udp": UdpBackend}
