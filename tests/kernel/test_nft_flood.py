"""A flood of forged VXLAN packets: none is delivered, each is counted, and who is honest notices nothing.

Two nodes joined by a wire.  The victim, 10.99.0.1, has the peers 10.99.0.2 and 10.99.0.3, and 10.99.1.0, whose
address looks like a prefix; the other end of the wire has these addresses and, as the attacker, 10.99.0.66.
Packets are built by scapy, which knows nothing of us.  Without the rules each kind of forged packet arrives: that
is how it is known that they keep it away.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest
import trio
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

from overlayd.core.firewall.nftables import BAD_SOURCE, NOT_OURS, UNKNOWN_SENDER, Sender
from overlayd.core.firewall.policy import source_check
from overlayd.core.kernel.driver import Operation, Verb
from overlayd.core.kernel.items import KernelState
from overlayd.host.netlink.driver import open_netlink_driver
from overlayd.host.netlink.netns import in_netns
from overlayd.host.nft.driver import NftDriver, open_nft
from support.netns import ip, two_nodes
from support.nft import firewall, require_nft, senders
from support.overlay import adding, install, mac, node, removing, subnet

VXLAN_PORT = 8472
HOME, FAR = ("10.244.1.0", 5002), ("10.244.3.77", 5003)
"""Who is to be reached: a socket of the victim's, and an address behind the victim's peer."""
ETH_P_ALL = 3


def inner(source: str, destination: tuple[str, int] = HOME, load: bytes = b"forged") -> Packet:
    frame = Ether(src=str(mac(2)), dst=str(mac(1)))
    return frame / IP(src=source, dst=destination[0]) / UDP(sport=5001, dport=destination[1]) / load


def on_vlan_0(packet: Packet) -> Packet:
    """The kernel takes such a tag for none, so all that follows stands four bytes later than usual."""
    return Ether(src=packet.src, dst=packet.dst) / Dot1Q(vlan=0) / packet[IP]


@dataclass(frozen=True)
class FloodPacket:
    """Sent from the underlay address `outer`, counted as `counter`; `far` where it is the victim's peer who would
    get it."""

    outer: str
    inner: Packet
    counter: str
    far: bool = False


FORGERIES = {
    "a stranger": FloodPacket("10.99.0.66", inner("10.244.2.9"), UNKNOWN_SENDER),
    "a stranger as itself": FloodPacket("10.99.0.66", inner("10.99.0.66"), UNKNOWN_SENDER),
    "another peer's pod": FloodPacket("10.99.0.2", inner("10.244.3.9"), BAD_SOURCE),
    "another peer": FloodPacket("10.99.0.2", inner("10.99.0.3"), BAD_SOURCE),
    "a pod of no node": FloodPacket("10.99.0.2", inner("10.244.200.9"), BAD_SOURCE),
    "the world": FloodPacket("10.99.0.2", inner("192.0.2.1"), BAD_SOURCE),
    "in fragments": FloodPacket("10.99.0.2", inner("10.244.3.9", load=bytes(3000)), BAD_SOURCE),
    "behind a tag": FloodPacket("10.99.0.2", on_vlan_0(inner("10.244.3.9")), BAD_SOURCE),
    "a node beside the node": FloodPacket("10.99.0.2", inner("10.99.0.7"), BAD_SOURCE),
    "a node beside one that looks like a prefix": FloodPacket("10.99.1.0", inner("10.99.1.7"), BAD_SOURCE),
    "beside a wide prefix": FloodPacket("10.99.0.3", inner("10.60.128.1"), BAD_SOURCE),
    "in a wide prefix of another peer": FloodPacket("10.99.0.2", inner("10.60.3.1"), BAD_SOURCE),
    "to another node": FloodPacket("10.99.0.2", inner("10.244.2.9", FAR), NOT_OURS, far=True),
}
SILENT = {
    "ARP": FloodPacket("10.99.0.2", Ether(dst=str(mac(1))) / ARP(pdst="10.244.1.0"), BAD_SOURCE),
    "IPv6": FloodPacket("10.99.0.2", Ether(dst=str(mac(1))) / IPv6(dst="ff02::1") / UDP(dport=5002), BAD_SOURCE),
    "the victim itself": FloodPacket("10.99.0.2", inner("10.244.1.9"), BAD_SOURCE),
    "to the victim's node": FloodPacket("10.99.0.2", inner("10.244.2.9", ("10.99.0.1", 5002)), NOT_OURS),
    "a stranger's, and too short": FloodPacket("10.99.0.66", Raw(b""), UNKNOWN_SENDER),
    "a loopback": FloodPacket("10.99.0.2", inner("127.0.0.1"), BAD_SOURCE),
}
"""What nobody would get without the rules either; it is counted all the same."""
HONEST = {
    "a pod": ("10.99.0.2", inner("10.244.2.9", load=b"honest")),
    "the node's overlay address": ("10.99.0.2", inner("10.244.2.0", load=b"honest")),
    "the node's underlay address": ("10.99.0.2", inner("10.99.0.2", load=b"honest")),
    "in fragments": ("10.99.0.2", inner("10.244.2.255", load=b"honest" + bytes(3000))),
    "a wide prefix": ("10.99.0.3", inner("10.60.3.1", load=b"honest")),
    "a node that looks like a prefix": ("10.99.1.0", inner("10.99.1.0", load=b"honest")),
    "another node": ("10.99.0.3", inner("10.244.3.1", load=b"honest")),
}


UNUSUAL = (
    Sender(IPv4Address("10.99.0.3"), IPv4Network("10.60.0.0/17")),
    Sender(IPv4Address("10.99.1.0"), IPv4Network("10.99.1.0/32")),
    Sender(IPv4Address("10.99.1.0"), IPv4Network("10.244.4.0/24")),
)
"""Who else may send: a peer with a subnet of another length, and one whose address has no bits behind /24."""


@dataclass
class FloodTopology:
    """`victim` and `attacker` are namespaces, `home` is the victim's socket, `far` sees every frame on the wire,
    `senders` send from these addresses."""

    victim: str
    attacker: str
    nft: NftDriver
    home: trio.socket.SocketType
    far: trio.socket.SocketType
    senders: dict[str, socket.socket]

    def send(self, outer: str, packet: Packet, times: int = 1, vni: int = 1) -> None:
        data = bytes(VXLAN(flags=0x08, vni=vni) / packet)
        for _ in range(times):
            self.senders[outer].sendto(data, ("10.99.0.1", VXLAN_PORT))

    async def delivered(self, *, far: bool = False) -> bytes:
        """The load of the next packet that arrives where it was sent to."""
        with trio.fail_after(10):
            if not far:
                return await self.home.recv(65536)
            while True:
                frame = Ether(await self.far.recv(65536))
                if VXLAN in frame and frame[IP].src == "10.99.0.1":
                    return bytes(frame[VXLAN][UDP].payload)

    async def counted(self, **expected: int) -> None:
        """Until the kernel has counted so much, and no more."""
        drops = {UNKNOWN_SENDER: 0, BAD_SOURCE: 0, NOT_OURS: 0} | expected
        with trio.move_on_after(10):
            while self.nft.read_drops() != drops:  # noqa: ASYNC110 - the kernel rings no bell
                await trio.sleep(0.01)
        assert self.nft.read_drops() == drops


@asynccontextmanager
async def staged(*, checked: bool) -> AsyncGenerator[FloodTopology]:
    require_nft()
    with two_nodes() as (victim, attacker), open_nft(victim) as nft, ExitStack() as sockets:
        for address in ("10.99.0.3/16", "10.99.1.0/16", "10.99.0.66/16"):
            ip(attacker, f"address add {address} dev eth0")
        async with open_netlink_driver(victim) as driver:
            await install(driver, node(1, peers=(2, 3)))
        if checked:
            await install(nft, firewall(1, peers=(2, 3)) | KernelState.of(UNUSUAL))

        def open_socket(
            name: str, kind: int, address: tuple[str, int], family: int, protocol: int = 0
        ) -> socket.socket:
            sock = sockets.enter_context(in_netns(name, lambda: socket.socket(family, kind, protocol)))
            sock.bind(address)
            return sock

        home = open_socket(victim, socket.SOCK_DGRAM, HOME, socket.AF_INET)
        far = open_socket(
            attacker, socket.SOCK_RAW, ("eth0", ETH_P_ALL), socket.AF_PACKET, socket.htons(ETH_P_ALL)
        )
        yield FloodTopology(
            victim,
            attacker,
            nft,
            trio.socket.from_stdlib_socket(home),
            trio.socket.from_stdlib_socket(far),
            {
                outer: open_socket(attacker, socket.SOCK_DGRAM, (outer, 0), socket.AF_INET)
                for outer in ("10.99.0.2", "10.99.0.3", "10.99.1.0", "10.99.0.66")
            },
        )


async def test_a_flood_of_forged_packets_is_dropped_and_counted_and_the_honest_arrive() -> None:
    bursts, times = 4, 50
    expected: Counter[str] = Counter()
    async with staged(checked=True) as stage:
        for _ in range(bursts):
            for forgery in (*FORGERIES.values(), *SILENT.values()):
                stage.send(forgery.outer, forgery.inner, times)
                expected[forgery.counter] += times
                await stage.counted(**expected)
            for outer, packet in HONEST.values():
                stage.send(outer, packet)
                assert (await stage.delivered()).startswith(b"honest")  # and nothing forged came before it
        await stage.counted(**expected)


@pytest.mark.parametrize("name", FORGERIES)
async def test_without_the_rules_the_forged_arrive(name: str) -> None:
    forgery = FORGERIES[name]
    async with staged(checked=False) as stage:
        stage.send(forgery.outer, forgery.inner)
        load = bytes(forgery.inner[UDP].payload)
        assert await stage.delivered(far=forgery.far) == load
        assert stage.nft.read_drops() == {}


async def test_what_is_no_vxlan_of_ours_is_no_business_of_ours() -> None:
    async with staged(checked=True) as stage:
        stage.send("10.99.0.66", inner("192.0.2.1"), vni=2)
        stage.senders["10.99.0.66"].sendto(b"", ("10.99.0.1", VXLAN_PORT))
        stage.senders["10.99.0.66"].sendto(bytes(100), ("10.99.0.1", VXLAN_PORT + 1))
        stage.send(*HONEST["a pod"])
        assert await stage.delivered() == b"honest"
        await stage.counted()


async def test_a_packet_that_ends_too_early_is_neither_delivered_nor_counted() -> None:
    """A rule does not apply to a packet that lacks what it compares."""
    async with staged(checked=True) as stage:
        whole = bytes(inner("10.244.3.9"))
        for size in (0, 8, 13, 14 + 12, 14 + 15):
            cut = bytes(VXLAN(flags=0x08, vni=1)) + whole[:size]
            stage.senders["10.99.0.2"].sendto(cut, ("10.99.0.1", VXLAN_PORT))
        stage.send(*HONEST["a pod"])
        assert await stage.delivered() == b"honest"
        await stage.counted()


async def test_an_ipv6_datagram_is_left_to_whoever_it_is_for() -> None:
    """Such as the VXLAN device of another overlay, with the same port and VNI."""
    async with staged(checked=True) as stage, AsyncExitStack() as sockets:
        ip(stage.victim, "address add fd99::1/64 dev eth0 nodad")
        ip(stage.attacker, "address add fd99::66/64 dev eth0 nodad")

        def open_socket(name: str, port: int) -> trio.socket.SocketType:
            sock = in_netns(name, lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
            sockets.enter_context(sock)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(("::", port))
            return trio.socket.from_stdlib_socket(sock)

        other, stranger = open_socket(stage.victim, VXLAN_PORT), open_socket(stage.attacker, 0)
        for packet in (inner("192.0.2.1"), Ether() / ARP(pdst="10.244.1.0"), inner("10.244.2.9", FAR)):
            data = bytes(VXLAN(flags=0x08, vni=1) / packet)
            await stranger.sendto(data, ("fd99::1", VXLAN_PORT))
            with trio.fail_after(10):
                assert await other.recv(65536) == data
        await stage.counted()


async def test_without_a_subnet_nobody_but_peers_is_let_in() -> None:
    async with staged(checked=True) as stage:
        chain = source_check(VXLAN_PORT, 1, 24, None)
        assert await stage.nft.apply([Operation(Verb.CHANGE, chain)]) == (None,)
        expected: Counter[str] = Counter()
        for forgery in (*FORGERIES.values(), *SILENT.values()):
            if forgery.counter != NOT_OURS:
                stage.send(forgery.outer, forgery.inner)
                expected[forgery.counter] += 1
        for outer, packet in HONEST.values():
            stage.send(outer, packet)
            assert (await stage.delivered()).startswith(b"honest")
        await stage.counted(**expected)


@pytest.mark.parametrize("length", [24, 16])
@pytest.mark.parametrize("frames_are_judged", ["always", "where one is accepted", "where one is dropped"])
async def test_a_tag_does_not_shift_a_forged_packet_past_the_rules(frames_are_judged: str, length: int) -> None:
    """Behind a tag TTL, protocol and checksum stand where the source is looked for, and the source in place of the
    destination.  They can be chosen to look like a peer's, here one whose subnet is just what stands there."""
    packet = inner("10.244.1.9")
    packet[IP].ttl = 10
    seen = IPv4Interface((bytes(on_vlan_0(packet))[26:30], length))  # an untagged packet has its source there
    chain = source_check(VXLAN_PORT, 1, 24, subnet(1))
    accepting, *others = chain.rules
    match frames_are_judged:
        case "where one is accepted":
            others = [rule for rule in others if "@th,224,16" not in rule]
        case "where one is dropped":
            accepting = accepting.replace(" @th,224,16 2048", "")
    passes = frames_are_judged != "always" and (length == 24 or frames_are_judged == "where one is accepted")
    async with staged(checked=True) as stage:
        peer = Sender(IPv4Address("10.99.0.2"), seen.network)
        await stage.nft.apply(adding([peer, replace(chain, rules=(accepting, *others))]))
        stage.send("10.99.0.2", on_vlan_0(packet))
        if passes:
            assert await stage.delivered() == b"forged"
        else:
            await stage.counted(bad_source=1)


async def test_a_peer_that_goes_is_a_stranger_at_once() -> None:
    async with staged(checked=True) as stage:
        stage.send(*HONEST["another node"])
        assert await stage.delivered() == b"honest"
        assert await stage.nft.apply(removing(senders(3))) == (None, None)
        stage.send(*HONEST["another node"])
        await stage.counted(unknown_sender=1)
