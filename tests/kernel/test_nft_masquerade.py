"""Who sees which source address: the masquerade rules between a pod, its node and the world.

The node, 10.99.0.1 with the subnet 10.244.1.0/24, has the pod 10.244.1.5.  The other node, 10.99.0.2, is the
world outside, and by VXLAN a peer with the subnet 10.244.2.0/24.  Each question is asked with the rules and
without them.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest
import trio

from overlayd.core.firewall.policy import masquerade
from overlayd.core.kernel.items import KernelState
from overlayd.host.netlink.driver import open_netlink_driver
from overlayd.host.netlink.netns import in_netns
from overlayd.host.nft.driver import open_nft
from support.netns import ip, netns, two_nodes
from support.nft import NETWORK, TABLE, nft, require_nft
from support.overlay import install, node, subnet

PORT = 5002
POD, NODE, TUNNEL = "10.244.1.5", "10.99.0.1", "10.244.1.0"
WORLD, PEER = "10.99.0.2", "10.244.2.0"


@dataclass
class Places:
    names: dict[str, str]
    sockets: ExitStack

    def socket(self, place: str, address: tuple[str, int]) -> trio.socket.SocketType:
        sock = in_netns(self.names[place], lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self.sockets.enter_context(sock)
        sock.bind(address)
        return trio.socket.from_stdlib_socket(sock)

    async def seen(self, place: str, source: str, to_place: str, destination: str) -> str:
        """The source address as it is seen at the destination; the answer must come back to the source."""
        asker, answerer = self.socket(place, (source, 0)), self.socket(to_place, (destination, PORT))
        with trio.fail_after(10):
            await asker.sendto(b"who am I?", (destination, PORT))
            _, address = await answerer.recvfrom(100)
            await answerer.sendto(b"this", address)
            assert await asker.recv(100) == b"this"
        assert isinstance(address, tuple)
        return str(address[0])


@asynccontextmanager
async def placed(*, rules: bool) -> AsyncGenerator[Places]:
    require_nft()
    with two_nodes() as (here, there), netns("pod") as pod, ExitStack() as sockets:
        ip(here, f"link add pod0 type veth peer name eth0 netns {pod}")
        ip(here, "link set pod0 up")
        ip(here, "address add 10.244.1.1/24 dev pod0")
        ip(pod, "link set eth0 up")
        ip(pod, f"address add {POD}/24 dev eth0")
        ip(pod, "route add default via 10.244.1.1")
        for number, (name, other) in enumerate(((here, 2), (there, 1)), start=1):
            async with open_netlink_driver(name) as driver:
                await install(driver, node(number, peers=(other,)))
        if rules:
            with open_nft(here) as driver:
                await install(driver, KernelState.of([TABLE, masquerade(NETWORK, subnet(1))]))
        yield Places({"node": here, "world": there, "pod": pod}, sockets)


@pytest.mark.parametrize(
    ("question", "with_rules", "without"),
    [
        (("pod", POD, "world", WORLD), NODE, POD),  # out of the network
        (("pod", POD, "world", PEER), POD, POD),  # to a peer's overlay address: never
        (("pod", POD, "node", NODE), POD, POD),  # to the own node: never
        (("node", NODE, "world", PEER), TUNNEL, NODE),  # into the network, from outside of it
        (("node", TUNNEL, "world", PEER), TUNNEL, TUNNEL),
        (("node", NODE, "pod", POD), NODE, NODE),  # to a pod of this node: never
        (("world", PEER, "pod", POD), PEER, PEER),  # from a peer: never
        (("node", NODE, "world", WORLD), NODE, NODE),  # what is no business of the network
    ],
)
async def test_who_is_seen(question: tuple[str, str, str, str], with_rules: str, without: str) -> None:
    async with placed(rules=True) as places:
        assert await places.seen(*question) == with_rules
    async with placed(rules=False) as places:
        assert await places.seen(*question) == without


@pytest.mark.parametrize("mark", [0x4000, 0x14001])
async def test_what_kube_proxy_has_marked_is_left_to_it(mark: int) -> None:
    """The bit alone counts, whatever other bits the mark has."""
    async with placed(rules=True) as places:
        script = f"""
            table ip others {{
              chain marking {{ type filter hook prerouting priority -150; ip saddr {POD} meta mark set {mark}; }}
            }}
        """
        nft(places.names["node"], "-f", "-", script=script)
        assert await places.seen("pod", POD, "world", WORLD) == POD


async def test_multicast_keeps_its_source() -> None:
    async with placed(rules=True) as places:
        audience = places.socket("world", ("239.1.2.3", PORT))
        audience.setsockopt(
            socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton("239.1.2.3") + socket.inet_aton(WORLD)
        )
        sender = places.socket("node", (TUNNEL, 0))
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(NODE))
        await sender.sendto(b"to many", ("239.1.2.3", PORT))
        with trio.fail_after(10):
            _, address = await audience.recvfrom(100)
        assert address[0] == TUNNEL
