"""Probes of many pairs at once, with sockets in their namespaces.

A socket stays in the namespace in which it was opened, whichever task uses it.  So all clients and responders of a
cluster are tasks of one process.
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
    """The limits of a run.

    `answer`: seconds for one question, all its tries included.  `tries`: how often a datagram is sent at most, as
    nothing else would make up for a lost one.  `leave`: seconds for a whole lab to follow a node that leaves or
    returns.  `at_once`: pairs that are probed at a time.
    """

    answer: float = 3.0
    tries: int = 3
    leave: float = 30.0
    at_once: int = 48


class NoAnswer(Exception):
    """A question was not answered; the text is the end of a sentence about the pair."""


class CannotShow(Exception):
    """This lab cannot show what a check is about; the text says why.  It is neither a failure nor a success."""


Outcomes = dict[ProbePair, CheckPassed | CheckFailed]
Probe = Callable[[ProbePair], Awaitable[str | None]]
"""Probes one pair: None if it is in order, else what is wrong.  May raise NoAnswer instead."""


def open_socket(endpoint: ProbeEndpoint, kind: socket.SocketKind, protocol: int = 0) -> socket.socket:
    """Open a non-blocking IPv4 socket in the namespace of an endpoint.  Raises NoAnswer."""
    try:
        sock = in_netns(endpoint.netns, lambda: socket.socket(socket.AF_INET, kind, protocol))
    except OSError as error:
        raise NoAnswer(f"cannot enter {endpoint.name}: {why(error.errno or 0)}") from error
    sock.setblocking(False)
    return sock


async def ask_each(pairs: Iterable[ProbePair], probe: Probe, at_once: int) -> Outcomes:
    """Probe every pair, `at_once` of them at a time; their outcomes."""
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
