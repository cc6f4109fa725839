"""Who reaches whom: the checks that ask a question over TCP, UDP or ICMP and look at the answer."""

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
from overlayd.lab.suite.responder import Book, responding
from overlayd.lab.suite.topology import OUTSIDE, ProbeEndpoint, ProbePair, Topology

TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
_NAMES = {TCP: "TCP", UDP: "UDP"}


@dataclass(frozen=True)
class Contact:
    """Asks every pair over each of these protocols, with a payload of each of these sizes (bytes) both ways.

    `judge` says what else is wrong with an answer that came from the right end, complete and unchanged.
    """

    port: Port
    over: Sequence[socket.SocketKind]
    sizes: Sequence[int] = (0,)
    at_once: int | None = None
    judge: Callable[[ProbePair, EchoReply], str | None] = lambda pair, answer: None

    async def __call__(self, topology: Topology, pairs: tuple[ProbePair, ...], limits: Limits) -> Outcomes:
        targets = [pair.target for pair in pairs]
        async with AsyncExitStack() as stack:
            books = {
                kind: await stack.enter_async_context(responding(targets, kind, self.port)) for kind in self.over
            }

            async def probe(pair: ProbePair) -> str | None:
                for kind, book in books.items():
                    for size in self.sizes:
                        wrong = await self._ask(pair, kind, size, book, limits)
                        if wrong is not None:
                            return wrong
                return None

            return await ask_each(pairs, probe, self.at_once or limits.at_once)

    async def _ask(
        self, pair: ProbePair, kind: socket.SocketKind, size: int, book: Book, limits: Limits
    ) -> str | None:
        question = EchoRequest(fresh_nonce(), payload=size, wanted=size)
        ask = ask_tcp if kind == TCP else ask_udp
        try:
            wrong = self.judge(pair, await ask(pair, self.port, question, book, limits))
        except NoAnswer as nothing:
            wrong = str(nothing)
        if wrong is not None and len(self.sizes) > 1:
            wrong = f"{size:,} bytes: {wrong}"
        if wrong is not None and len(self.over) > 1:
            wrong = f"{_NAMES[kind]}: {wrong}"
        return wrong


def translated(pair: ProbePair, answer: EchoReply) -> str | None:
    """What is wrong with the source address that the responder saw: within the overlay it must be the asker's own,
    outside of it that of the asker's node."""
    source, name = pair.source.address, pair.source.name
    if pair.target.name == OUTSIDE:
        source, name = pair.source.node.underlay, pair.source.node.name
    if answer.source == str(source):
        return None
    return f"{pair.target.name} saw it come from {answer.source}, {name} is {source}"


@dataclass
class Witness:
    """Raw sockets in the targets, which see the echo requests that arrive there.

    It is the kernel that replies to an echo request, and its reply bears no name; only this tells that it
    was the addressed one that was asked."""

    book: Book = field(default_factory=Book)
    sockets: dict[ProbeEndpoint, socket.socket] = field(default_factory=dict)

    @classmethod
    @contextmanager
    def at(cls, targets: Iterable[ProbeEndpoint]) -> Generator[Witness, None, None]:
        witness = cls()
        with ExitStack() as stack:
            for target in dict.fromkeys(targets):
                sock = stack.enter_context(open_socket(target, socket.SOCK_RAW, socket.IPPROTO_ICMP))
                witness.sockets[target] = sock
            yield witness

    def look(self, target: ProbeEndpoint) -> None:
        """Note all that has arrived there by now."""
        while True:
            try:
                message = find_echo(self.sockets[target].recv(65_535))
            except BlockingIOError:
                return
            if message is not None and message.kind is IcmpType.REQUEST:
                self.book.arrived[message.payload.decode(errors="replace")] = target.name


async def echo(topology: Topology, pairs: tuple[ProbePair, ...], limits: Limits) -> Outcomes:
    """Every pair over ICMP."""
    with Witness.at(pair.target for pair in pairs) as witness:

        async def probe(pair: ProbePair) -> str | None:
            return await _echo(pair, witness, limits)

        return await ask_each(pairs, probe, limits.at_once)


async def _echo(pair: ProbePair, witness: Witness, limits: Limits) -> str | None:
    nonce = fresh_nonce()
    identifier = int(nonce[:4], 16)  # a new one each time: address translators know a ping by it
    target = pair.target
    with open_socket(pair.source, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        connect(sock, pair, 0)
        for sequence in range(1, limits.tries + 1):
            with trio.move_on_after(limits.answer / limits.tries):
                send(sock, echo_request(identifier, sequence, nonce.encode()))
                await _wait_reply(sock, nonce)
                witness.look(target)
                if witness.book.arrived.get(nonce) != target.name:
                    return f"echo came back, but {target.name} was never asked: another end has its address"
                return None
    witness.look(target)
    where = witness.book.where_lost(nonce, target.name)
    raise NoAnswer(f"no echo within {limits.answer:g} s (sent {limits.tries}): {where}")


async def _wait_reply(sock: socket.socket, nonce: str) -> None:
    """Until the reply to our request is there.  Raises NoAnswer for an ICMP error instead."""
    while True:
        packet = await next_datagram(sock)
        if not isinstance(packet, bytes):
            raise NoAnswer(f"no echo: {packet}")
        message = find_echo(packet)
        if message is not None and message.kind is IcmpType.REPLY and message.payload == nonce.encode():
            return
