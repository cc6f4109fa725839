"""Checks that all nodes forget a node that leaves, and know it again when it comes back.

The leaver's daemon is stopped and `overlayd cleanup --release` run, as an operator would.  The others' kernels and
userspace datapaths are read until nothing in them names it.  Then it is brought back in any case, and the check
ends once all of them have the same entries as before.  It takes a node away from the others, so it runs last.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network

import trio

from overlayd.lab.blueprint import visitor_environment
from overlayd.lab.control import Ask, LabError, ask_from_inside
from overlayd.lab.model import LabNode
from overlayd.lab.suite.outcome import CheckFailed, CheckPassed
from overlayd.lab.suite.probing import Limits, Outcomes, ask_each
from overlayd.lab.suite.topology import ProbePair, Topology
from overlayd.lab.suite.traces import read_tables, traces

_POLL = 0.1
"""Seconds between two polls of a kernel."""


class CannotLeave(Exception):
    """The leaver could not be taken away or brought back; the text says why."""


@dataclass(frozen=True, slots=True)
class View:
    """The entries of `observer` that name `peer`."""

    observer: LabNode
    peer: LabNode
    subnet: IPv4Network

    async def look(self) -> frozenset[str]:
        return traces(await read_tables(self.observer), self.subnet, self.peer.underlay)

    async def wait(self, wanted: frozenset[str], seconds: float) -> frozenset[str]:
        """Poll until the entries are the wanted ones, or so many seconds have passed; the last ones seen."""
        seen = await self.look()
        deadline = trio.current_time() + seconds
        while seen != wanted and trio.current_time() < deadline:
            await trio.sleep(_POLL)
            seen = await self.look()
        return seen


async def leave(topology: Topology, pairs: tuple[ProbePair, ...], limits: Limits) -> Outcomes:
    """Check every pair: a node that stays, and the one that leaves."""
    leaver = pairs[0].target.node

    def both_ways(pair: ProbePair) -> tuple[View, View]:
        stays = pair.source.node
        return View(stays, leaver, topology.subnets[leaver]), View(leaver, stays, topology.subnets[stays])

    before = {view: await view.look() for pair in pairs for view in both_ways(pair)}

    async def forgets(pair: ProbePair) -> str | None:
        view, _ = both_ways(pair)
        if not before[view]:
            return f"{view.observer.name} did not know {leaver.name} in the first place"
        left = await view.wait(frozenset(), limits.leave)
        return f"{limits.leave:g} s after {leaver.name} left there is still {_listed(left)}" if left else None

    async def knows_again(pair: ProbePair) -> str | None:
        for view in both_ways(pair):
            seen = await view.wait(before[view], limits.leave)
            if seen != before[view]:
                return f"{limits.leave:g} s after {leaver.name} came back {_difference(view, before[view], seen)}"
        return None

    try:
        async with absence(topology, leaver):
            outcomes = await ask_each(pairs, forgets, len(pairs))
    except CannotLeave as error:
        return dict.fromkeys(pairs, CheckFailed(str(error)))
    forgetful = [pair for pair in pairs if isinstance(outcomes[pair], CheckPassed)]
    return outcomes | await ask_each(forgetful, knows_again, len(pairs))


def _listed(lines: frozenset[str]) -> str:
    return ", ".join(sorted(lines))


def _difference(view: View, before: frozenset[str], seen: frozenset[str]) -> str:
    lost, new = before - seen, seen - before
    parts = [f"lacks {_listed(lost)}"] if lost else []
    parts += [f"has {_listed(new)}"] if new else []
    return f"{view.observer.name} {' and '.join(parts)}"


@asynccontextmanager
async def absence(topology: Topology, leaver: LabNode) -> AsyncGenerator[None, None]:
    """Let a node leave while open; afterwards its daemon runs again, whatever happened meanwhile.

    The subnet file is put back first: from it a daemon reads which subnet it had, and the pods of this node have
    addresses of that one.  Raises CannotLeave.
    """
    try:
        remembered = leaver.subnet_file.read_bytes()
    except OSError as error:
        raise CannotLeave(f"{leaver.name} has no subnet file: {error.strerror}") from error
    await _control(Ask.STOP, leaver)
    try:
        await _clean_up(topology, leaver)
        yield
    finally:
        with trio.CancelScope(shield=True):
            leaver.subnet_file.write_bytes(remembered)
            await _control(Ask.START, leaver)


async def _control(verb: Ask, node: LabNode) -> None:
    try:
        await trio.to_thread.run_sync(ask_from_inside, verb, node.name)
    except (LabError, OSError) as error:
        raise CannotLeave(f"{verb} of {node.name}: {error}") from error


async def _clean_up(topology: Topology, node: LabNode) -> None:
    command = [sys.executable, "-m", "overlayd", "cleanup", "--release", "--iface", "eth0"]
    done = await trio.run_process(
        ["ip", "netns", "exec", node.name, *command],
        env=visitor_environment(os.environ, topology.spec, node.name),
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip() or f"exit status {done.returncode}"
        raise CannotLeave(f"cleanup on {node.name}: {said}")
