"""The checks that send a question over TCP, UDP or ICMP and judge the answer."""

from __future__ import annotations

import socket
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass, field

import trio

from overlayd.lab.suite.ask import ask_tcp, ask_udp, connect, fresh_nonce, next_datagram, send
from overlayd.lab.suite.echo_protocol import EchoReply, EchoRequest
from overlayd.lab.suite.icmp import IcmpType, echo_request, find_echo
from overlayd.lab.suite.ports import Port
from overlayd.lab.suite.probing import Limits, NoAnswer, Outcomes, ask_each, open_socket
from overlayd.lab.suite.responder import RequestLog, responding
from overlayd.lab.suite.topology import OUTSIDE, ProbeEndpoint, ProbePair, Topology

TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
_NAMES = {TCP: "TCP", UDP: "UDP"}


@dataclass(frozen=True)
class Exchange:
    """A check of every pair over each of these protocols, with a payload of each size (bytes) both ways.

    `judge` tells what else is wrong with an answer that came from the right end, complete and unchanged.
    """

    port: Port
    over: Sequence[socket.SocketKind]
    sizes: Sequence[int] = (0,)
    at_once: int | None = None
    judge: Callable[[ProbePair, EchoReply], str | None] = lambda pair, answer: None

    async def __call__(self, topology: Topology, pairs: tuple[ProbePair, ...], limits: Limits) -> Outcomes:
        targets = [pair.target for pair in pairs]
        async with AsyncExitStack() as stack:
            logs = {
                kind: await stack.enter_async_context(responding(targets, kind, self.port)) for kind in self.over
            }

            async def probe(pair: ProbePair) -> str | None:
                for kind, log in logs.items():
                    for size in self.sizes:
                        wrong = await self._ask(pair, kind, size, log, limits)
                        if wrong is not None:
                            return wrong
                return None

            return await ask_each(pairs, probe, self.at_once or limits.at_once)

    async def _ask(
        self, pair: ProbePair, kind: socket.SocketKind, size: int, log: RequestLog, limits: Limits
    ) -> str | None:
        question = EchoRequest(fresh_nonce(), payload=size, wanted=size)
        ask = ask_tcp if kind == TCP else ask_udp
        try:
            wrong = self.judge(pair, await ask(pair, self.port, question, log, limits))
        except NoAnswer as nothing:
            wrong = str(nothing)
        if wrong is not None and len(self.sizes) > 1:
            wrong = f"{size:,} bytes: {wrong}"
        if wrong is not None and len(self.over) > 1:
            wrong = f"{_NAMES[kind]}: {wrong}"
        return wrong


def find_wrong_source(pair: ProbePair, answer: EchoReply) -> str | None:
    """Tell what is wrong with the source address that the responder saw, if anything.

    Within the overlay it must be the client's own, outside of it that of the client's node.
    """
    source, name = pair.source.address, pair.source.name
    if pair.target.name == OUTSIDE:
        source, name = pair.source.node.underlay, pair.source.node.name
    if answer.source == str(source):
        return None
    return f"{pair.target.name} saw it come from {answer.source}, {name} is {source}"


@dataclass
class EchoObserver:
    """Raw sockets in the targets, which see the echo requests that arrive there.

    The kernel replies to an echo request, and its reply names no namespace: only the observer tells that the
    request reached the target.
    """

    log: RequestLog = field(default_factory=RequestLog)
    sockets: dict[ProbeEndpoint, socket.socket] = field(default_factory=dict)

    @classmethod
    @contextmanager
    def at(cls, targets: Iterable[ProbeEndpoint]) -> Generator[EchoObserver, None, None]:
        observer = cls()
        with ExitStack() as stack:
            for target in dict.fromkeys(targets):
                sock = stack.enter_context(open_socket(target, socket.SOCK_RAW, socket.IPPROTO_ICMP))
                observer.sockets[target] = sock
            yield observer

    def look(self, target: ProbeEndpoint) -> None:
        """Record all requests that have arrived there by now."""
        while True:
            try:
                message = find_echo(self.sockets[target].recv(65_535))
            except BlockingIOError:
                return
            if message is not None and message.kind is IcmpType.REQUEST:
                self.log.arrived[message.payload.decode(errors="replace")] = target.name


async def echo(topology: Topology, pairs: tuple[ProbePair, ...], limits: Limits) -> Outcomes:
    """Ping every pair."""
    with EchoObserver.at(pair.target for pair in pairs) as observer:

        async def probe(pair: ProbePair) -> str | None:
            return await _echo(pair, observer, limits)

        return await ask_each(pairs, probe, limits.at_once)


async def _echo(pair: ProbePair, observer: EchoObserver, limits: Limits) -> str | None:
    nonce = fresh_nonce()
    identifier = int(nonce[:4], 16)  # a new one each time: NAT tells pings apart by it
    target = pair.target
    with open_socket(pair.source, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        connect(sock, pair, 0)
        for sequence in range(1, limits.tries + 1):
            with trio.move_on_after(limits.answer / limits.tries):
                send(sock, echo_request(identifier, sequence, nonce.encode()))
                await _wait_reply(sock, nonce)
                observer.look(target)
                if observer.log.arrived.get(nonce) != target.name:
                    return f"echo came back, but {target.name} was never asked: another end has its address"
                return None
    observer.look(target)
    where = observer.log.where_lost(nonce, target.name)
    raise NoAnswer(f"no echo within {limits.answer:g} s (sent {limits.tries}): {where}")


async def _wait_reply(sock: socket.socket, nonce: str) -> None:
    """Wait for the reply to our request.  Raises NoAnswer for an ICMP error instead."""
    while True:
        packet = await next_datagram(sock)
        if not isinstance(packet, bytes):
            raise NoAnswer(f"no echo: {packet}")
        message = find_echo(packet)
        if message is not None and message.kind is IcmpType.REPLY and message.payload == nonce.encode():
            return
