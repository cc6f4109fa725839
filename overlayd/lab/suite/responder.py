"""What stands in a namespace and answers, over TCP or UDP, with its own name.

Responders share one book of what reached whom: when an answer stays out, it tells a question that never arrived
from an answer that never came back.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Iterable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import trio

from overlayd.lab.suite.echo_protocol import MOST, ExchangeError, answer_to
from overlayd.lab.suite.icmp_errors import why
from overlayd.lab.suite.probing import NoAnswer, open_socket
from overlayd.lab.suite.topology import ProbeEndpoint

_RECEIVE_BUFFER = 8 << 20
"""Bytes, of which the kernel grants what net.core.rmem_max allows.  It counts whole pages, so a datagram of 60 kB
that came in fragments takes twice its size, and several pairs may ask one responder at once."""
_PATIENCE = 30.0
"""Seconds that a responder holds a connection open for a question to be complete."""


@dataclass
class Book:
    """`arrived`: by nonce, who got the question.  `mute`: by nonce, why that one could not answer it."""

    arrived: dict[str, str] = field(default_factory=dict)
    mute: dict[str, str] = field(default_factory=dict)

    def where_lost(self, nonce: str, target: str) -> str:
        """What became of a question without an answer, as a clause."""
        got = self.arrived.get(nonce)
        if got is None:
            return f"the question never reached {target}"
        if got != target:
            return f"the question reached {got} instead of {target}"
        if nonce in self.mute:
            return f"{target} got the question but cannot answer: {self.mute[nonce]}"
        return f"{target} got the question, its answer was lost"


@asynccontextmanager
async def responding(
    targets: Iterable[ProbeEndpoint], kind: socket.SocketKind, port: int
) -> AsyncGenerator[Book, None]:
    """While open, each of the targets answers on this port, whichever of its addresses is asked.

    Raises NoAnswer where a namespace cannot be entered or the port is taken."""
    book = Book()
    serve = _serve_tcp if kind == socket.SOCK_STREAM else _serve_udp
    with ExitStack() as stack:
        sockets: dict[str, socket.socket] = {}
        for target in targets:
            if target.name not in sockets:
                sockets[target.name] = stack.enter_context(_bound(target, kind, port))
        async with trio.open_nursery() as nursery:
            for name, sock in sockets.items():
                nursery.start_soon(serve, trio.socket.from_stdlib_socket(sock), name, book)
            yield book
            nursery.cancel_scope.cancel()


def _bound(target: ProbeEndpoint, kind: socket.SocketKind, port: int) -> socket.socket:
    sock = open_socket(target, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(("0.0.0.0", port))
        if kind == socket.SOCK_STREAM:
            sock.listen(1024)
    except OSError as error:
        sock.close()
        raise NoAnswer(f"{target.name} cannot listen on port {port}: {why(error.errno or 0)}") from error
    return sock


async def _serve_tcp(sock: trio.socket.SocketType, name: str, book: Book) -> None:
    await trio.serve_listeners(partial(_answer_tcp, name, book), [trio.SocketListener(sock)])


async def _answer_tcp(name: str, book: Book, stream: trio.SocketStream) -> None:
    with trio.move_on_after(_PATIENCE):
        async with stream:
            try:
                source = stream.socket.getpeername()[0]
                message = b"".join([part async for part in stream])
                answer = answer_to(message, name, source)
                book.arrived[answer.nonce] = name
                await stream.send_all(answer.encode())
            except (OSError, trio.BrokenResourceError, ExchangeError):
                return  # the asker gave up or sent half a question: it knows, and says so


async def _serve_udp(sock: trio.socket.SocketType, name: str, book: Book) -> None:
    while True:
        message, asker = await sock.recvfrom(MOST)
        try:
            answer = answer_to(message, name, asker[0])
        except ExchangeError:
            continue  # no question of ours: its asker, if there is one, will say that no answer came
        book.arrived[answer.nonce] = name
        try:
            await sock.sendto(answer.encode(), asker)
        except OSError as error:
            book.mute[answer.nonce] = why(error.errno or 0)
