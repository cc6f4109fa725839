"""The responder of an exchange: it answers in its namespace, over TCP or UDP, with its own name.

Responders share one log of the questions that arrived: without an answer, it tells a lost question from a lost
answer.
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
"""Bytes; the kernel grants at most net.core.rmem_max.  It counts whole pages, so a datagram of 60 kB that came in
fragments takes twice its size, and several pairs may ask one responder at once."""
_PATIENCE = 30.0
"""Seconds that a responder waits for the whole question on a connection."""


@dataclass
class RequestLog:
    """The questions that arrived.  `arrived`: by nonce, where.  `mute`: by nonce, why it could not be answered."""

    arrived: dict[str, str] = field(default_factory=dict)
    mute: dict[str, str] = field(default_factory=dict)

    def where_lost(self, nonce: str, target: str) -> str:
        """Explain, as a clause, why a question has no answer."""
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
) -> AsyncGenerator[RequestLog, None]:
    """Let each of the targets answer on this port, at any of its addresses, while open.

    Raises NoAnswer where a namespace cannot be entered or the port is taken.
    """
    log = RequestLog()
    serve = _serve_tcp if kind == socket.SOCK_STREAM else _serve_udp
    with ExitStack() as stack:
        sockets: dict[str, socket.socket] = {}
        for target in targets:
            if target.name not in sockets:
                sockets[target.name] = stack.enter_context(_bound(target, kind, port))
        async with trio.open_nursery() as nursery:
            for name, sock in sockets.items():
                nursery.start_soon(serve, trio.socket.from_stdlib_socket(sock), name, log)
            yield log
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


async def _serve_tcp(sock: trio.socket.SocketType, name: str, log: RequestLog) -> None:
    await trio.serve_listeners(partial(_answer_tcp, name, log), [trio.SocketListener(sock)])


async def _answer_tcp(name: str, log: RequestLog, stream: trio.SocketStream) -> None:
    with trio.move_on_after(_PATIENCE):
        async with stream:
            try:
                source = stream.socket.getpeername()[0]
                message = b"".join([part async for part in stream])
                answer = answer_to(message, name, source)
                log.arrived[answer.nonce] = name
                await stream.send_all(answer.encode())
            except (OSError, trio.BrokenResourceError, ExchangeError):
                return  # the client gave up or sent half a question, and reports that itself


async def _serve_udp(sock: trio.socket.SocketType, name: str, log: RequestLog) -> None:
    while True:
        message, client = await sock.recvfrom(MOST)
        try:
            answer = answer_to(message, name, client[0])
        except ExchangeError:
            continue  # not a question: its client, if it is one of ours, reports that no answer came
        log.arrived[answer.nonce] = name
        try:
            await sock.sendto(answer.encode(), client)
        except OSError as error:
            log.mute[answer.nonce] = why(error.errno or 0)
