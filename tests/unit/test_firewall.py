"""What is asked of nft, and of whom it is told: pure rules, and their text."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlayd.core.firewall.nftables import NftChain, NftTable, Sender
from overlayd.core.firewall.policy import (
    NO_FIREWALL,
    Firewall,
    FirewallError,
    PacketFilter,
    decide,
    describe,
    find_senders,
)
from overlayd.core.kernel.items import KernelState
from overlayd.core.leases.lease import Attributes, Lease
from overlayd.core.network.addresses import Mac, Subnet
from overlayd.core.network.backend import HostRequirements, make_view
from overlayd.core.network.config import parse_config
from overlayd.core.network.desired import DesiredState, state_desired
from overlayd.core.network.view import NetworkView, Underlay
from overlayd_backends.hostgw import HostGwBackend
from overlayd_backends.vxlan import VxlanBackend

CONFIG = parse_config(b'{"Network": "10.244.0.0/16"}')
MAC = Mac(bytes([2, 0, 0, 0, 0, 1]))
UNDERLAY = Underlay(
    "eth0", IPv4Address("10.99.0.1"), (IPv4Network("10.99.0.0/16"),), 1500, IPv4Address("10.99.0.1")
)
VXLAN = VxlanBackend()
BOTH = Firewall(masquerade=True, source_check=True)


def lease(number: int, backend: str = "vxlan", vtep: int | None = None) -> Lease:
    data = f'{{"VNI":1,"VtepMAC":"02:00:00:00:00:{vtep or number:02x}"}}'
    attributes = Attributes((IPv4Address(f"10.99.0.{number}"),), backend, data)
    return Lease(Subnet.parse(f"10.244.{number}.0/24"), attributes, number)


def view(peers: tuple[Lease, ...] = (), *, own: Lease | None = None, in_sync: bool = True) -> NetworkView:
    return make_view(CONFIG, VXLAN, UNDERLAY, MAC, own, peers, in_sync=in_sync)


def desired(firewall: Firewall, seen: NetworkView, backend: VxlanBackend | HostGwBackend = VXLAN) -> DesiredState:
    return state_desired((backend, PacketFilter(firewall, backend.requirements())), seen)


def nft_items(state: KernelState) -> list[str]:
    return [str(item) for item in state if isinstance(item, NftTable | NftChain | Sender)]


def test_the_whole_wish_of_a_node_with_a_peer_reads_so() -> None:
    found = desired(BOTH, view((lease(2),), own=lease(1)))
    assert "\n".join(nft_items(found.kernel)) == (
        "table inet overlayd\n"
        "sender 10.99.0.2 of 10.99.0.2/32\n"
        "sender 10.99.0.2 of 10.244.2.0/24\n"
        "chain inet overlayd ip_masq { type nat hook postrouting priority 100; policy accept; "
        "meta mark & 16384 == 16384 return; "
        "ip saddr 10.244.1.0/24 ip daddr 10.244.0.0/16 return; "
        "ip saddr 10.244.0.0/16 ip daddr 10.244.1.0/24 return; "
        "ip saddr != 10.244.1.0/24 ip daddr 10.244.1.0/24 return; "
        "ip saddr 10.244.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random; "
        "ip saddr != 10.244.0.0/16 ip daddr 10.244.0.0/16 masquerade fully-random }\n"
        "chain inet overlayd source_check { type filter hook input priority -200; policy accept; "
        "th dport 8472 @th,224,16 2048 @th,368,32 & 4294967040 == 183763200 "
        "@nh,96,32 . @th,336,32 & 4294967040 @senders_24 accept; "
        "th dport != 8472 accept; "
        "meta nfproto != 2 accept; "
        "udp dport 8472 @th,96,24 1 @nh,96,32 . @nh,96,32 != @nodes counter name unknown_sender drop; "
        "udp dport 8472 @th,96,24 1 @th,224,16 != 2048 counter name bad_source drop; "
        "udp dport 8472 @th,96,24 1 @nh,96,32 . @th,336,32 & 4294967040 != @senders_24 "
        "@nh,96,32 . @th,336,32 != @nodes @nh,96,32 . @th,336,32 != @others counter name bad_source drop; "
        "udp dport 8472 @th,96,24 1 @th,368,32 & 4294967040 != 183763200 counter name not_ours drop }"
    )


def test_senders_belong_to_their_peer_and_the_rest_to_the_node() -> None:
    peer = lease(2)
    found = desired(BOTH, view((peer,), own=lease(1)))
    assert nft_items(found.peers[peer.subnet]) == [str(sender) for sender in find_senders(peer)[::-1]]
    assert not any(isinstance(item, Sender) for item in found.base.items)


def test_a_peer_that_is_not_served_lets_nobody_in() -> None:
    refused = (lease(3, backend="host-gw"), lease(4, vtep=1))
    found = desired(BOTH, view((lease(2), *refused), own=lease(1)))
    assert len(found.refused) == 2
    assert {item.address for item in found.kernel.items if isinstance(item, Sender)} == {IPv4Address("10.99.0.2")}


def test_without_a_subnet_sources_are_checked_and_destinations_are_not() -> None:
    found = nft_items(desired(BOTH, view((lease(2),))).kernel)
    assert [item.split()[0] for item in found] == ["table", "sender", "sender", "chain"]
    assert "source_check" in found[-1]
    assert "unknown_sender" in found[-1]
    assert "bad_source" in found[-1]
    assert "not_ours" not in found[-1]
    assert "@th,368,32" not in found[-1]


def test_before_the_first_snapshot_sources_are_left_as_they_are() -> None:
    """With a check and no senders a daemon that starts while the store is away would cut its node off."""
    assert [item.split()[:4] for item in nft_items(desired(BOTH, view(own=lease(1), in_sync=False)).kernel)] == [
        ["table", "inet", "overlayd"],
        ["chain", "inet", "overlayd", "ip_masq"],
    ]


def test_sources_are_checked_for_the_vxlan_of_the_kernel_alone() -> None:
    seen = view((lease(2, backend="host-gw"),), own=lease(1))
    assert desired(Firewall(source_check=True), seen, HostGwBackend()) == state_desired((HostGwBackend(),), seen)
    assert desired(NO_FIREWALL, view((lease(2),), own=lease(1))) == state_desired(
        (VXLAN,), view((lease(2),), own=lease(1))
    )


def test_the_mask_is_the_configs_and_not_that_of_the_own_subnet() -> None:
    """A node may still hold a subnet of another length, from before the config changed."""
    config = parse_config(b'{"Network": "10.244.0.0/16", "SubnetLen": 26}')
    seen = make_view(config, VXLAN, UNDERLAY, MAC, lease(1), (), in_sync=True)
    found = desired(Firewall(source_check=True), seen).kernel
    assert NftTable(26) in found.items
    [_, chain] = nft_items(found)
    assert "@th,368,32 & 4294967040 == 183763200 @nh,96,32 . @th,336,32 & 4294967232 @senders_26 accept" in chain


@pytest.mark.parametrize(
    ("prefix", "name"),
    [
        ("10.244.2.0/24", "senders_24"),
        ("10.99.0.2/32", "nodes"),
        ("10.99.0.3/32", "others"),
        ("10.99.0.0/24", "senders_24"),
        ("10.244.2.0/25", "others"),
        ("10.0.0.0/8", "others"),
    ],
)
def test_a_sender_is_in_the_set_of_its_length(prefix: str, name: str) -> None:
    assert Sender(IPv4Address("10.99.0.2"), IPv4Network(prefix)).set_in(24) == name


def test_two_peers_behind_one_address_are_both_let_in() -> None:
    behind = Lease(Subnet.parse("10.244.7.0/24"), lease(2, vtep=7).attributes, 7)
    found = desired(BOTH, view((lease(2), behind), own=lease(1)))
    assert {str(item) for item in found.kernel.items if isinstance(item, Sender)} == {
        "sender 10.99.0.2 of 10.99.0.2/32",
        "sender 10.99.0.2 of 10.244.2.0/24",
        "sender 10.99.0.2 of 10.244.7.0/24",
    }


@given(st.sets(st.integers(2, 40)), st.booleans(), st.booleans(), st.randoms(use_true_random=False))
def test_what_one_peer_asks_for_does_not_depend_on_the_others(
    numbers: set[int], masquerade: bool, source_check: bool, order: random.Random
) -> None:
    firewall = Firewall(masquerade, source_check)
    peers = [lease(number) for number in numbers]
    order.shuffle(peers)
    together = desired(firewall, view(tuple(peers), own=lease(1)))
    for peer in peers:
        alone = desired(firewall, view((peer,), own=lease(1)))
        assert together.peers[peer.subnet] == alone.peers[peer.subnet]
        assert together.base == alone.base


MISSING = "nft is not installed: it is in the package nftables"


@pytest.mark.parametrize(
    ("asked", "obstacle", "decided"),
    [
        ((False, None), "", Firewall(False, True, "")),
        ((True, None), "", Firewall(True, True, "")),
        ((True, False), "", Firewall(True, False, "switched off by --source-check off")),
        ((False, None), MISSING, Firewall(False, False, MISSING)),
        ((False, False), MISSING, Firewall(False, False, "switched off by --source-check off")),
    ],
)
def test_what_can_be_had_is_decided_at_start(
    asked: tuple[bool, bool | None], obstacle: str, decided: Firewall
) -> None:
    assert decide(*asked, obstacle) == decided


@pytest.mark.parametrize(("asked", "option"), [((True, None), "--ip-masq"), ((False, True), "--source-check")])
def test_what_was_asked_for_in_vain_is_refused_by_name(asked: tuple[bool, bool | None], option: str) -> None:
    with pytest.raises(FirewallError, match=rf"^{option}.* needs nft: .*the package nftables$"):
        decide(*asked, MISSING)


def test_status_tells_what_is_checked_and_why_not() -> None:
    told = describe(BOTH, VXLAN.requirements(), {"bad_source": 3})
    assert (told.masquerade, told.source_check, told.reason, told.drops) == (True, True, "", {"bad_source": 3})
    assert describe(Firewall(reason=MISSING), VXLAN.requirements(), {}).reason == MISSING
    assert not describe(BOTH, HostRequirements(port=8285, tun=True), {}).source_check
