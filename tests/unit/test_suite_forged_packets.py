"""Forged packets are what they pretend to be but for one lie.  Scapy, which knows nothing of us, reads them."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import msgspec
import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN

from overlayd.core.firewall.nftables import BAD_SOURCE, NOT_OURS, UNKNOWN_SENDER
from overlayd.core.status.status import FirewallStatus, Status
from overlayd.lab.model import LabSpec
from overlayd.lab.suite.catalogue import CHECKS, nodes_to_a_far_pod
from overlayd.lab.suite.forged_packets import (
    Forge,
    datagram,
    encapsulate,
    encapsulation,
    from_third_node,
    from_unknown_sender,
    outside_the_subnet,
    position,
)
from overlayd.lab.suite.spoof import why_unchecked
from overlayd.lab.suite.topology import ProbeEndpoint, Topology

LIES: tuple[tuple[Forge, str], ...] = (
    (from_unknown_sender, UNKNOWN_SENDER),
    (from_third_node, BAD_SOURCE),
    (outside_the_subnet, NOT_OURS),
)


def topology(backend: str = "vxlan", nodes: int = 3) -> Topology:
    spec = LabSpec(nodes=nodes, pods=2, backend=backend)
    subnets = {node: IPv4Network(f"10.244.{node.number}.0/24") for node in spec.all_nodes}
    ends = tuple(ProbeEndpoint(node.name, node, subnets[node][1], 1450) for node in spec.all_nodes)
    pods = tuple(ProbeEndpoint(pod.name, pod.node, pod.address(subnets[pod.node]), 1450) for pod in spec.all_pods)
    return Topology(spec, subnets, ends, pods)


@pytest.mark.parametrize("nodes", [2, 3])
@pytest.mark.parametrize(("forge", "counter"), LIES)
def test_a_forgery_lies_once(forge: Forge, counter: str, nodes: int) -> None:
    there = topology(nodes=nodes)
    for pair in nodes_to_a_far_pod(there):
        forgery = forge(there, pair)
        sender, target = pair.source.node, pair.target.node
        lies = {
            UNKNOWN_SENDER: forgery.outer not in {node.underlay for node in there.spec.all_nodes},
            BAD_SOURCE: forgery.source not in there.subnets[sender],
            NOT_OURS: forgery.destination not in there.subnets[target],
        }
        assert [name for name, is_lie in lies.items() if is_lie] == [counter] == [forgery.counter]


@pytest.mark.parametrize("backend", ["vxlan", "udp"])
def test_it_is_a_packet_of_the_backend_with_true_checksums(backend: str) -> None:
    there = topology(backend)
    pair, needs = nodes_to_a_far_pod(there)[0], encapsulation(there.spec)
    forgery = from_unknown_sender(there, pair)
    inner = datagram(forgery.source, forgery.destination, 7011, b"load")
    packet = encapsulate(forgery, pair.target.node, needs, b"\x0a\0\0\0\0\x02", inner)
    outer = IP(packet)
    assert (outer.src, outer.dst) == (str(forgery.outer), str(pair.target.node.underlay))
    assert (outer[UDP].dport, outer[UDP].chksum) == (needs.port, 0)
    if backend == "vxlan":
        tunnel = VXLAN(bytes(outer[UDP].payload))
        assert (tunnel.flags.value, tunnel.vni) == (0x08, 1)
        assert (tunnel[Ether].dst, tunnel[Ether].type) == ("0a:00:00:00:00:02", 0x0800)
        within = tunnel[IP]
    else:
        within = IP(bytes(outer[UDP].payload))
    assert (within.src, within.dst, within[UDP].dport) == (str(forgery.source), str(forgery.destination), 7011)
    assert bytes(within[UDP].payload) == b"load"
    assert packet.index(inner) == 20 + position(needs)
    for header in (outer, within):
        told = header.chksum
        del header.chksum
        assert IP(bytes(header)).chksum == told


def test_which_pairs_are_lied_to() -> None:
    pairs = [(pair.source.name, pair.target.name) for pair in nodes_to_a_far_pod(topology(nodes=2))]
    assert pairs == [("node1", "pod2-1"), ("node2", "pod1-1")]
    assert nodes_to_a_far_pod(topology("host-gw")) == ()


def test_who_masquerades_is_asked_from_outside_and_within() -> None:
    check = next(check for check in CHECKS if check.name == "masquerade-outside")
    there = topology(nodes=2)
    assert check.pairs(there) == ()
    pairs = check.pairs(replace(there, spec=replace(there.spec, ip_masq=True)))
    outward = [pair for pair in pairs if pair.target.name == "outside"]
    assert [pair.source for pair in outward] == list(there.pods)
    assert {(pair.target.netns, pair.target.address) for pair in outward} == {(None, IPv4Address("10.99.255.1"))}
    assert len(pairs) == 4 + 4 * 2 + 4 * 2


BLANK = Status("", 0, 30, "node1", "", 0, "held", True, 1, device="ovl.1")


def test_what_is_not_guarded_is_not_tried_and_says_why() -> None:
    def said(firewall: FirewallStatus | None) -> str:
        return why_unchecked(msgspec.structs.replace(BLANK, firewall=firewall))

    assert said(FirewallStatus(False, True, "", {})) == ""
    assert said(FirewallStatus(False, False, "nft is not installed", {})) == "nft is not installed"
    assert said(None) == "its daemon has not set up its device yet"
