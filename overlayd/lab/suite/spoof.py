"""Checks that no forged packet is delivered, that each is counted, and that genuine ones pass.

They leave the source's node by a raw socket, which can send any source address.  The target's node must count
them: with VXLAN the source check does so, by counters of nftables; over udp the datapath.
"""

from __future__ import annotations

import fcntl
import socket
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import trio

from overlayd.api.status_socket import StatusUnavailableError, query_status
from overlayd.core.status.status import Status
from overlayd.host.netlink.netns import in_netns
from overlayd.host.nft.driver import open_nft
from overlayd.lab.model import LabNode
from overlayd.lab.suite.ask import ask_udp, fresh_nonce
from overlayd.lab.suite.echo_protocol import EchoRequest
from overlayd.lab.suite.forged_packets import Forge, ForgedPacket, datagram, encapsulate, encapsulation
from overlayd.lab.suite.icmp_errors import why
from overlayd.lab.suite.ports import Port
from overlayd.lab.suite.probing import CannotShow, Limits, NoAnswer, Outcomes, ask_each, open_socket
from overlayd.lab.suite.responder import RequestLog, responding
from overlayd.lab.suite.topology import ProbePair, Topology

TIMES = 5
"""Forged packets for each pair."""
_POLL = 0.02
"""Seconds between two polls of a counter."""

_SIOCGIFHWADDR = 0x8927
"""linux/sockios.h"""
_IFREQ = struct.Struct("16sH6s16x")
"""struct ifreq (linux/if.h), with ifr_hwaddr of an Ethernet device."""


@dataclass(frozen=True)
class SpoofGuard:
    """The source check of a node: `drops` reads how many packets it has dropped, by reason.

    `mac` is that of the node's VTEP, b"" where it has none.
    """

    drops: Callable[[], Awaitable[Mapping[str, int]]]
    mac: bytes = b""


@dataclass(frozen=True)
class Spoof:
    """A check with packets of `forge`; genuine ones go to the same port."""

    port: Port
    forge: Forge

    async def __call__(self, topology: Topology, pairs: tuple[ProbePair, ...], limits: Limits) -> Outcomes:
        """Probe one pair after the other at each target: a counter does not tell the sender."""
        homes = {node.node: node for node in topology.nodes}
        groups = {target: [pair for pair in pairs if pair.target == target] for _, target in pairs}
        listeners = [*groups, *(homes[target.node] for target in groups)]
        outcomes: Outcomes = {}
        async with AsyncExitStack() as stack:
            guards = {target: await stack.enter_async_context(guard_of(target.node)) for target in groups}
            log = await stack.enter_async_context(responding(listeners, socket.SOCK_DGRAM, self.port))

            async def probe(pair: ProbePair) -> str | None:
                wrong = await self._send_forged(topology, pair, guards[pair.target], log, limits)
                if wrong is None:
                    await ask_udp(pair, self.port, EchoRequest(fresh_nonce()), log, limits)
                return wrong

            async def probe_targets(group: list[ProbePair]) -> None:
                outcomes.update(await ask_each(group, probe, at_once=1))

            async with trio.open_nursery() as nursery:
                for group in groups.values():
                    nursery.start_soon(probe_targets, group)
        return {pair: outcomes[pair] for pair in pairs}

    async def _send_forged(
        self, topology: Topology, pair: ProbePair, guard: SpoofGuard, log: RequestLog, limits: Limits
    ) -> str | None:
        forgery, needs, node = self.forge(topology, pair), encapsulation(topology.spec), pair.target.node
        nonces = [fresh_nonce() for _ in range(TIMES)]
        before = (await guard.drops()).get(forgery.counter, 0)
        for nonce in nonces:
            inner = datagram(forgery.source, forgery.destination, self.port, EchoRequest(nonce).encode())
            _send(pair, encapsulate(forgery, node, needs, guard.mac, inner))
        dropped = 0
        with trio.move_on_after(limits.answer):
            while dropped < TIMES and not log.arrived.keys() & nonces:
                await trio.sleep(_POLL)
                dropped = (await guard.drops()).get(forgery.counter, 0) - before
        for nonce in log.arrived.keys() & nonces:
            return f"{log.arrived[nonce]} got what {_claim(forgery)}"
        if dropped < TIMES:
            return f"{node.name} counted {dropped} of {TIMES} as {forgery.counter} that {_claim(forgery)}"
        return None


def _claim(forgery: ForgedPacket) -> str:
    return f"said it came from {forgery.source} behind {forgery.outer}, for {forgery.destination}"


def _send(pair: ProbePair, packet: bytes) -> None:
    """Send a packet as it is, IP header included.  Raises NoAnswer."""
    with open_socket(pair.source, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:  # raw(7): the header is ours
        try:
            sock.sendto(packet, (str(pair.target.node.underlay), 0))
        except OSError as error:
            raise NoAnswer(f"nothing forged was sent: {why(error.errno or 0)}") from error


@asynccontextmanager
async def guard_of(node: LabNode) -> AsyncGenerator[SpoofGuard, None]:
    """Find the source check of a node.  Raises CannotShow where there is none, or it can't be read."""
    try:
        status = (await query_status(node.run_dir)).status
    except StatusUnavailableError as error:
        raise CannotShow(f"{node.name} does not say what it drops: {error}") from error
    if status.datapath is not None:
        yield SpoofGuard(lambda: _ask_datapath(node))
        return
    if reason := why_unchecked(status):
        raise CannotShow(f"{node.name} does not check sources: {reason}")
    with open_nft(node.name) as nft:

        async def ask_kernel() -> Mapping[str, int]:
            return nft.read_drops()

        yield SpoofGuard(ask_kernel, read_mac(node, status.device or ""))


def why_unchecked(status: Status) -> str:
    """Explain why a node does not check the sources of VXLAN packets; "" if it does."""
    if status.firewall is None or status.device is None:
        return "its daemon has not set up its device yet"
    return "" if status.firewall.source_check else status.firewall.reason


async def _ask_datapath(node: LabNode) -> Mapping[str, int]:
    """Read the drops of a node's datapath.  Raises NoAnswer."""
    try:
        status: Status = (await query_status(node.run_dir)).status
    except StatusUnavailableError as error:
        raise NoAnswer(f"{node.name} no longer says what it drops: {error}") from error
    return status.datapath.drops if status.datapath is not None else {}


def read_mac(node: LabNode, device: str) -> bytes:
    """Read the MAC of a node's Ethernet device.  Raises OSError where there is none."""

    def call() -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            answer = fcntl.ioctl(sock, _SIOCGIFHWADDR, _IFREQ.pack(device.encode(), 0, b""))
        _, _, mac = _IFREQ.unpack(answer)
        return bytes(mac)

    return in_netns(node.name, call)
