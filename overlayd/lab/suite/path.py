"""The checks of a path: the size of packet that it carries, and the routers that it passes."""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
from collections.abc import Generator, Iterable
from contextlib import contextmanager

import trio

from overlayd.host.netlink.netns import in_netns
from overlayd.lab.suite.ask import ask_udp, connect, forbid_fragments, fresh_nonce, next_datagram, send
from overlayd.lab.suite.echo_protocol import EchoRequest
from overlayd.lab.suite.icmp_errors import IcmpError, why
from overlayd.lab.suite.outcome import CheckFailed, CheckPassed
from overlayd.lab.suite.ports import Port
from overlayd.lab.suite.probing import Limits, NoAnswer, Outcomes, ask_each, open_socket
from overlayd.lab.suite.responder import RequestLog, responding
from overlayd.lab.suite.topology import ProbeEndpoint, ProbePair, Topology

_HEADERS = 28
"""Bytes before the payload of a UDP datagram: IP header 20 (RFC 791), UDP header 8 (RFC 768)."""

_FARTHEST = 5
"""The TTL at which every target must have been reached: a path has two routers, and an encapsulation may count
twice at each end."""

_DEVICE = b"eth0"
_SIOCGIFMTU, _SIOCSIFMTU = 0x8921, 0x8922
"""linux/sockios.h"""
_IFREQ = struct.Struct("16si20x")
"""struct ifreq (linux/if.h), with ifr_mtu."""


async def exact_mtu(topology: Topology, pairs: tuple[ProbePair, ...], limits: Limits) -> Outcomes:
    """Check that a datagram of exactly the overlay's MTU passes whole, and that one byte more is refused.

    The pod's own kernel refuses it; for a pod with a larger MTU its node says that fragmentation is needed.
    """
    outcomes: Outcomes = {}
    async with responding((pair.target for pair in pairs), socket.SOCK_DGRAM, Port.MTU_EXACT) as log:

        async def fits(pair: ProbePair) -> str | None:
            return await _fits_exactly(pair, log, limits)

        async def is_refused_beyond(pair: ProbePair) -> str | None:
            return await _refused_beyond(pair, topology, limits)

        async def ask_from(source: ProbeEndpoint, own: list[ProbePair]) -> None:
            found = await ask_each(own, fits, limits.at_once)
            fitting = [pair for pair in own if isinstance(found[pair], CheckPassed)]
            if fitting:
                with larger_mtu(source):
                    found |= await ask_each(fitting, is_refused_beyond, limits.at_once)
            outcomes.update(found)

        async with trio.open_nursery() as nursery:
            for source, own in _by_source(pairs).items():
                nursery.start_soon(ask_from, source, own)
    return {pair: outcomes[pair] for pair in pairs}


async def _fits_exactly(pair: ProbePair, log: RequestLog, limits: Limits) -> str | None:
    mtu = pair.source.mtu
    device = read_mtu(pair.source)
    if device != mtu:
        return f"{pair.source.name} has an MTU of {device}, the overlay carries {mtu}"
    exact = EchoRequest.of_size(fresh_nonce(), mtu - _HEADERS)
    try:
        await ask_udp(pair, Port.MTU_EXACT, exact, log, limits, whole=True)
    except NoAnswer as nothing:
        return f"a packet of {mtu} bytes: {nothing}"
    with open_socket(pair.source, socket.SOCK_DGRAM) as sock:
        forbid_fragments(sock)
        connect(sock, pair, Port.MTU_EXACT)
        try:
            sock.send(bytes(mtu + 1 - _HEADERS))
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                return None
            raise NoAnswer(f"{mtu + 1} bytes not sent: {why(error.errno or 0)}") from error
    return f"{mtu + 1} bytes could be sent unfragmented, the overlay carries {mtu}"


async def _refused_beyond(pair: ProbePair, topology: Topology, limits: Limits) -> str | None:
    mtu = pair.source.mtu
    question = EchoRequest.of_size(fresh_nonce(), mtu + 1 - _HEADERS).encode()
    with open_socket(pair.source, socket.SOCK_DGRAM) as sock:
        forbid_fragments(sock)
        connect(sock, pair, Port.MTU_EXACT)
        for _ in range(limits.tries):
            with trio.move_on_after(limits.answer / limits.tries):
                send(sock, question)
                reply = await next_datagram(sock)
                return _why_not_refused(reply, pair, topology)
    return (
        f"{mtu + 1} bytes from a larger MTU: silence for {limits.answer:g} s (sent {limits.tries}) "
        f"where {pair.source.node.name} must say that fragmentation is needed"
    )


def _why_not_refused(reply: bytes | IcmpError, pair: ProbePair, topology: Topology) -> str | None:
    mtu = pair.source.mtu
    if isinstance(reply, bytes):
        return f"{mtu + 1} bytes passed unfragmented, the overlay carries {mtu}"
    if not reply.is_fragmentation_needed or reply.by not in topology.router_addresses(pair.source.node):
        return f"{mtu + 1} bytes from a larger MTU: {reply}, where {pair.source.node.name} must refuse them"
    if reply.mtu != mtu:
        return f"{reply.by} says that the MTU is {reply.mtu}, the overlay carries {mtu}"
    return None


def read_mtu(pod: ProbeEndpoint) -> int:
    """Read the MTU of a pod's device.  Raises NoAnswer where the pod has lost its device."""
    return _ifreq_mtu(pod, _SIOCGIFMTU, 0)


@contextmanager
def larger_mtu(pod: ProbeEndpoint) -> Generator[None, None, None]:
    """Let the pod send packets one byte longer than the overlay carries, while open.

    The other end of its device still accepts them: a veth device accepts packets that exceed its MTU by at most
    a VLAN tag, 4 bytes (is_skb_forwardable in net/core/dev.c).  So nothing changes on the node.
    """
    before = read_mtu(pod)
    _ifreq_mtu(pod, _SIOCSIFMTU, pod.mtu + 1)
    try:
        yield
    finally:
        _ifreq_mtu(pod, _SIOCSIFMTU, before)


def _ifreq_mtu(pod: ProbeEndpoint, request: int, mtu: int) -> int:
    def call() -> int:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            answer = fcntl.ioctl(sock, request, _IFREQ.pack(_DEVICE, mtu))
        _, found = _IFREQ.unpack(answer)
        return int(found)

    try:
        return in_netns(pod.name, call)
    except OSError as error:
        raise NoAnswer(f"{pod.name} has no {_DEVICE.decode()}: {why(error.errno or 0)}") from error


async def routers(topology: Topology, pairs: tuple[ProbePair, ...], limits: Limits) -> Outcomes:
    """Check that a datagram whose time to live is too short is answered by the router where it ends: the pod's own
    node first, the target's node last, and none in between stays silent.

    The first router is asked once for each source, not for each pair: all pairs of a source share it."""
    outcomes: Outcomes = {}
    async with responding((pair.target for pair in pairs), socket.SOCK_DGRAM, Port.TTL):

        async def beyond_first(pair: ProbePair) -> str | None:
            return await _why_wrong_way(pair, topology, limits)

        async def ask_from(source: ProbeEndpoint, own: list[ProbePair]) -> None:
            unanswered: Outcomes = {}
            for pair in own:
                try:
                    first = await _end_of(pair, 1, limits)
                except NoAnswer as nothing:
                    unanswered[pair] = CheckFailed(str(nothing))
                    continue
                wrong = _why_wrong_router(first, 1, topology, source)
                if wrong is not None:
                    unanswered[pair] = CheckFailed(wrong)
                    continue
                outcomes.update(await ask_each(own, beyond_first, limits.at_once))
                return
            outcomes.update(unanswered)

        async with trio.open_nursery() as nursery:
            for source, own in _by_source(pairs).items():
                nursery.start_soon(ask_from, source, own)
    return {pair: outcomes[pair] for pair in pairs}


async def _why_wrong_way(pair: ProbePair, topology: Topology, limits: Limits) -> str | None:
    last = pair.source
    for ttl in range(2, _FARTHEST + 1):
        end = await _end_of(pair, ttl, limits)
        if isinstance(end, bytes):
            if last.node == pair.target.node:
                return None
            return f"reached with TTL {ttl}, but {pair.target.node.name} did not show on the way"
        wrong = _why_wrong_router(end, ttl, topology, pair.source, pair.target)
        if wrong is not None:
            return wrong
        if end.by in topology.router_addresses(pair.target.node):
            last = pair.target
    return f"not reached with a TTL of {_FARTHEST}"


def _why_wrong_router(end: bytes | IcmpError, ttl: int, topology: Topology, *ends: ProbeEndpoint) -> str | None:
    nodes = " or ".join(dict.fromkeys(one.node.name for one in ends))
    if isinstance(end, bytes):
        return f"reached with TTL {ttl}, but {nodes} did not show on the path"
    if not end.is_time_exceeded or not any(end.by in topology.router_addresses(one.node) for one in ends):
        return f"TTL {ttl}: {end}, where {nodes} must say that its time is exceeded"
    return None


async def _end_of(pair: ProbePair, ttl: int, limits: Limits) -> bytes | IcmpError:
    """Send a datagram with this TTL; the target's answer, or a router's error.  Raises NoAnswer."""
    with open_socket(pair.source, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
        connect(sock, pair, Port.TTL)
        for _ in range(limits.tries):
            with trio.move_on_after(limits.answer / limits.tries):
                send(sock, EchoRequest(fresh_nonce()).encode())
                return await next_datagram(sock)
    raise NoAnswer(f"TTL {ttl}: silence for {limits.answer:g} s (sent {limits.tries})")


def _by_source(pairs: Iterable[ProbePair]) -> dict[ProbeEndpoint, list[ProbePair]]:
    grouped: dict[ProbeEndpoint, list[ProbePair]] = {}
    for pair in pairs:
        grouped.setdefault(pair.source, []).append(pair)
    return grouped
