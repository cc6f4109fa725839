"""The namespaces at work: sockets inside them, and many pairs at once.

One process plays every part.  A socket belongs to the namespace that it was made in, whoever uses it, so the
askers and responders of a whole cluster can be tasks of one trio program.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

import trio

from overlayd.host.netlink.netns import in_netns
from overlayd.lab.suite.icmp_errors import why
from overlayd.lab.suite.outcome import CheckFailed, CheckPassed
from overlayd.lab.suite.topology import ProbeEndpoint, ProbePair


@dataclass(frozen=True, slots=True)
class Limits:
    """How long to wait.  `answer`: seconds for one question, all its tries included.  `tries`: how often a
    datagram is sent at most, as nothing else would repair the loss of one.  `leave`: seconds for a whole lab to
    follow a node that leaves or comes.  `at_once`: pairs under way at one time."""

    answer: float = 3.0
    tries: int = 3
    leave: float = 30.0
    at_once: int = 48


class NoAnswer(Exception):
    """A question came to nothing; the text is the end of a sentence about the pair."""


class CannotShow(Exception):
    """This lab, as it is, cannot show what a check is about; the text says why.  That is no failure of the
    overlay's, and no success."""


Outcomes = dict[ProbePair, CheckPassed | CheckFailed]
Probe = Callable[[ProbePair], Awaitable[str | None]]
"""Asks one pair: None when all is well, else what is wrong.  May raise NoAnswer instead."""


def open_socket(endpoint: ProbeEndpoint, kind: socket.SocketKind, protocol: int = 0) -> socket.socket:
    """A non-blocking IPv4 socket in the namespace of this end.  Raises NoAnswer."""
    try:
        sock = in_netns(endpoint.netns, lambda: socket.socket(socket.AF_INET, kind, protocol))
    except OSError as error:
        raise NoAnswer(f"cannot enter {endpoint.name}: {why(error.errno or 0)}") from error
    sock.setblocking(False)
    return sock


async def ask_each(pairs: Iterable[ProbePair], probe: Probe, at_once: int) -> Outcomes:
    """The outcome of every pair, so many of them under way at once."""
    outcomes: Outcomes = {}
    turn = trio.CapacityLimiter(at_once)

    async def ask(pair: ProbePair) -> None:
        async with turn:
            outcomes[pair] = await verdict(pair, probe)

    pairs = tuple(pairs)
    async with trio.open_nursery() as nursery:
        for pair in pairs:
            nursery.start_soon(ask, pair)
    return {pair: outcomes[pair] for pair in pairs}  # the order of the check, not of the answers


async def verdict(pair: ProbePair, probe: Probe) -> CheckPassed | CheckFailed:
    try:
        wrong = await probe(pair)
    except NoAnswer as nothing:
        return CheckFailed(str(nothing))
    return CheckPassed() if wrong is None else CheckFailed(wrong)
