"""Checks that pods on different nodes reach each other although FORWARD drops by policy, as it does after Docker.

First in iptables-nft, then in iptables-legacy, the policy of every node's FORWARD becomes DROP.  Once each daemon
has its rules there, all pairs are checked; then the policies are restored.  A table that iptables made for this
stays, empty.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

from overlayd.core.firewall.iptables import COMMENT, Variant
from overlayd.host.program import find_program, run_program
from overlayd.lab.model import LabNode
from overlayd.lab.suite.connectivity import TCP, UDP, Exchange
from overlayd.lab.suite.outcome import CheckFailed
from overlayd.lab.suite.ports import Port
from overlayd.lab.suite.probing import CannotShow, Limits, Outcomes
from overlayd.lab.suite.topology import ProbePair, Topology

_POLL = 0.1
"""Seconds between two polls of a chain."""
_EXCHANGE = Exchange(port=Port.FORWARD_DROP, over=[TCP, UDP])
_OURS = re.compile(rf"-A FORWARD -[sd] \S+ -m comment --comment \"?{COMMENT}\"? -j ACCEPT")


class _Refused(Exception):
    """This iptables does not work here; the text says why."""


async def forward_drop(topology: Topology, pairs: tuple[ProbePair, ...], limits: Limits) -> Outcomes:
    """Check every pair, in each variant that works here.  Raises CannotShow where none does."""
    outcomes: Outcomes = {}
    refusals = []
    for variant in Variant:
        try:
            async with dropping(topology, variant):
                found = await _ask(topology, pairs, variant, limits)
        except _Refused as reason:
            refusals.append(str(reason))
            continue
        for pair, outcome in found.items():
            failed = (
                CheckFailed(f"{variant.command}: {outcome.reason}")
                if isinstance(outcome, CheckFailed)
                else outcome
            )
            if not isinstance(outcomes.get(pair), CheckFailed):
                outcomes[pair] = failed
    if not outcomes:
        raise CannotShow("; ".join(refusals))
    return outcomes


async def _ask(topology: Topology, pairs: tuple[ProbePair, ...], variant: Variant, limits: Limits) -> Outcomes:
    waiting = list(topology.spec.all_nodes)
    deadline = trio.current_time() + limits.leave
    while waiting and trio.current_time() < deadline:
        await trio.sleep(_POLL)
        waiting = [node for node in waiting if not await _is_opened(node, variant)]
    if waiting:
        names = ", ".join(node.name for node in waiting)
        return dict.fromkeys(pairs, CheckFailed(f"after {limits.leave:g} s FORWARD accepts nothing on {names}"))
    return await _EXCHANGE(topology, pairs, limits)


async def _is_opened(node: LabNode, variant: Variant) -> bool:
    """Tell whether FORWARD drops by policy, and begins with our two rules."""
    policy, *rules = await _iptables(node, variant, "-S", "FORWARD")
    return policy == "-P FORWARD DROP" and len(rules) > 1 and all(map(_OURS.fullmatch, rules[:2]))


@asynccontextmanager
async def dropping(topology: Topology, variant: Variant) -> AsyncGenerator[None, None]:
    """Set FORWARD's policy to DROP on all nodes while open.  Raises _Refused."""
    before: dict[LabNode, str] = {}
    try:
        for node in topology.spec.all_nodes:
            policy, *_ = await _iptables(node, variant, "-S", "FORWARD")
            before[node] = policy
            await _iptables(node, variant, "-P", "FORWARD", "DROP")
        yield
    finally:
        with trio.CancelScope(shield=True):
            for node, policy in before.items():
                await _iptables(node, variant, *policy.split())


async def _iptables(node: LabNode, variant: Variant, *arguments: str) -> list[str]:
    """Run iptables; the lines that it prints.  Raises _Refused."""
    program = find_program(variant.command)
    if program is None:
        raise _Refused(f"needs {variant.command}: apt-get install iptables")
    done = await run_program(node.name, program, "--wait", "5", *arguments)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise _Refused(f"{variant.command} does not work on {node.name}: {said[0] if said else 'it says nothing'}")
    return done.stdout.decode(errors="replace").splitlines()
