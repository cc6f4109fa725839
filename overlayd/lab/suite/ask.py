"""The client of an exchange: one question from one namespace to another, and its answer or NoAnswer."""

from __future__ import annotations

import secrets
import socket

import trio

from overlayd.lab.suite.echo_protocol import (
    MOST,
    EchoReply,
    EchoRequest,
    ExchangeError,
    parse_answer,
    why_wrong,
)
from overlayd.lab.suite.icmp_errors import IP_RECVERR, IcmpError, find_icmp_error, receive, why
from overlayd.lab.suite.probing import Limits, NoAnswer, open_socket
from overlayd.lab.suite.responder import RequestLog
from overlayd.lab.suite.topology import ProbePair

# linux/in.h
IP_MTU_DISCOVER = 10
IP_PMTUDISC_PROBE = 3
"""Sets DF as IP_PMTUDISC_DO does, but ignores a path MTU that was learned earlier: a check must find the path as
it is now."""


def fresh_nonce() -> str:
    return secrets.token_hex(8)


async def ask_tcp(pair: ProbePair, port: int, question: EchoRequest, log: RequestLog, limits: Limits) -> EchoReply:
    """Connect, send the question and read the answer to its end.  Raises NoAnswer, also for a wrong answer."""
    step = "connection"
    with trio.move_on_after(limits.answer), open_socket(pair.source, socket.SOCK_STREAM) as raw:
        raw.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)  # an ICMP error ends the attempt at once
        sock = trio.socket.from_stdlib_socket(raw)
        try:
            await sock.connect((str(pair.target.address), port))
            step = "answer"
            stream = trio.SocketStream(sock)
            await stream.send_all(question.encode())
            await stream.send_eof()
            message = b"".join([part async for part in stream])
        except OSError as error:
            raise NoAnswer(f"no {step}: {find_icmp_error(raw) or why(error.errno or 0)}") from error
        except trio.BrokenResourceError as error:
            cause = error.__cause__
            text = why(cause.errno or 0) if isinstance(cause, OSError) else str(error)
            raise NoAnswer(f"connected, then broken off: {text}") from error
        return _checked(message, question, pair)
    if step == "connection":
        raise NoAnswer(f"no connection within {limits.answer:g} s")
    raise NoAnswer(f"connected, but {_silence(limits)}: {log.where_lost(question.nonce, pair.target.name)}")


async def ask_udp(
    pair: ProbePair, port: int, question: EchoRequest, log: RequestLog, limits: Limits, *, whole: bool = False
) -> EchoReply:
    """Send the question, and again at even intervals until an answer comes.

    `whole` forbids fragments: then a packet that is too big for the path is a result, and is not sent again in
    fragments.  Raises NoAnswer, also for a wrong answer.
    """
    message = question.encode()
    with open_socket(pair.source, socket.SOCK_DGRAM) as sock:
        if whole:
            forbid_fragments(sock)
        connect(sock, pair, port)
        for _ in range(limits.tries):
            with trio.move_on_after(limits.answer / limits.tries):
                send(sock, message)
                reply = await next_datagram(sock)
                if isinstance(reply, bytes):
                    return _checked(reply, question, pair)
                if whole or not reply.is_fragmentation_needed:
                    raise NoAnswer(f"no answer: {reply}")
                # else the path's MTU is known from now on, and the next try goes out in fragments
    where = log.where_lost(question.nonce, pair.target.name)
    raise NoAnswer(f"{_silence(limits)} (sent {limits.tries}): {where}")


def _silence(limits: Limits) -> str:
    return f"no answer within {limits.answer:g} s"


def _checked(message: bytes, question: EchoRequest, pair: ProbePair) -> EchoReply:
    if not message:
        raise NoAnswer("the connection was closed without an answer")
    try:
        answer = parse_answer(message)
    except ExchangeError as error:
        raise NoAnswer(f"the answer is garbled: {error}") from error
    wrong = why_wrong(question, answer, pair.target.name)
    if wrong is not None:
        raise NoAnswer(wrong)
    return answer


def forbid_fragments(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE)


def connect(sock: socket.socket, pair: ProbePair, port: int) -> None:
    """Connect a datagram socket, so that it receives only the target's answers and ICMP errors about it.

    Raises NoAnswer where there is no route.
    """
    sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    try:
        sock.connect((str(pair.target.address), port))
    except OSError as error:
        raise NoAnswer(f"not sent: {why(error.errno or 0)}") from error


def send(sock: socket.socket, message: bytes) -> None:
    """Send a datagram.  Raises NoAnswer where the sending namespace itself refuses it."""
    try:
        sock.send(message)
    except OSError as error:
        raise NoAnswer(f"not sent: {why(error.errno or 0)}") from error


async def next_datagram(sock: socket.socket) -> bytes | IcmpError:
    """Wait for what a connected datagram socket receives next: an answer, or an error about what was sent."""
    while True:
        got = receive(sock, MOST)
        if got is not None:
            return got
        await trio.lowlevel.wait_readable(sock)
