"""The driver of what iptables keeps for us: the two rules, in each of its variants.

Nothing is made by looking: `iptables-nft` is asked only where its table is there, and `iptables-legacy`, which
makes a table by the mere question, only where the kernel says that it has one.  A listing of the former is
believed as long as the generation of nf_tables is the same.  Of the latter no event tells: while it is in use it
is listed anew every few seconds, and a difference is a hint like others.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from overlayd.core.firewall.iptables import ForwardRules, Variant
from overlayd.core.kernel.driver import Failure, Hints, Operation, Scope, Verb
from overlayd.core.kernel.items import KernelState
from overlayd.core.status.problem import Problem
from overlayd.host.iptables.listing import Listing, parse_listing, write_script
from overlayd.host.netlink.connection import Notifications, open_notifications
from overlayd.host.netlink.netns import in_netns
from overlayd.host.nft.netfilter import (
    NETLINK_NETFILTER,
    NFNLGRP_NFTABLES,
    NFPROTO_IPV4,
    Netfilter,
    is_about_chain,
)
from overlayd.host.program import find_program, run_program

PACKAGE = "iptables"
"""Its name in all big distributions."""
LOOK_EVERY = 2.0
"""Seconds between two looks at iptables-legacy while that is in use."""
_TABLE, _CHAIN = "filter", "FORWARD"
_WAIT = ("--wait", "5")
"""Seconds to wait for the lock that all iptables share, /run/xtables.lock."""
_NAMES = Path("/proc/thread-self/net/ip_tables_names")
"""The tables that iptables-legacy has in this network namespace."""


@dataclass(frozen=True, slots=True)
class InUse:
    """Which variants somebody else uses, and why some other one could not be looked at.  `legacy` is what
    iptables-legacy-save has written, "" where there is nothing."""

    variants: frozenset[Variant] = frozenset()
    legacy: str = ""
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class _Look:
    """What was seen, and `proof` of the instant: the generation of nf_tables, or a time of trio's clock."""

    proof: float
    listing: Listing
    problem: Problem | None = None
    text: str = ""


def _is_good_for(variant: Variant, look: _Look, proof: float) -> bool:
    """Whether it says what another look would say now, as far as can be known."""
    if variant is Variant.LEGACY:
        return proof - look.proof < LOOK_EVERY
    return look.proof == proof and look.problem is None


class _Unreadable(Exception):
    """The variant can't be listed; the text is a sentence, `remedy` another one."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.remedy = remedy


class IptablesDriver:
    """Observes and applies `ForwardRules` items alone."""

    def __init__(self, netfilter: Netfilter | None, netns: str | None) -> None:
        self._netfilter = netfilter
        self._netns = netns
        self._looks: dict[Variant, _Look] = {}

    async def observe(self, scope: Scope) -> KernelState:
        """What is ours in both variants, whatever the scope.  Raises OSError."""
        found = [(await self._look(variant)).listing.ours for variant in Variant]
        return KernelState.of(rules for rules in found if rules is not None)

    async def find_in_use(self) -> InUse:
        """Raises OSError."""
        looks = {variant: await self._look(variant) for variant in Variant}
        return InUse(
            frozenset(variant for variant, look in looks.items() if look.listing.in_use),
            looks[Variant.LEGACY].text,
            tuple(look.problem for look in looks.values() if look.problem is not None),
        )

    async def _look(self, variant: Variant) -> _Look:
        proof = self._proof(variant)
        if proof is None:
            self._looks.pop(variant, None)
            return _Look(0, Listing())
        before = self._looks.get(variant)
        if before is not None and _is_good_for(variant, before, proof):
            return before
        return await self._look_anew(variant, proof)

    def _proof(self, variant: Variant) -> float | None:
        """None where the variant has no table, so that there is nothing to look at."""
        if variant is Variant.LEGACY:
            return trio.current_time() if _TABLE in in_netns(self._netns, _read_names) else None
        netfilter = self._netfilter
        if netfilter is None or netfilter.find_table_flags(NFPROTO_IPV4, _TABLE) is None:
            return None
        return netfilter.find_generation()

    async def _look_anew(self, variant: Variant, proof: float) -> _Look:
        try:
            text = await self._save(variant)
            look = _Look(proof, parse_listing(variant, text), text=text)
        except _Unreadable as error:
            look = _Look(proof, Listing(), Problem("iptables-unreadable", str(error), error.remedy))
        self._looks[variant] = look
        return look

    async def _save(self, variant: Variant) -> str:
        program = find_program(f"{variant.command}-save")
        if program is None:
            if variant is Variant.NFT:
                return ""  # a table of this name that was not made by iptables; if it was, nft tells what drops
            raise _Unreadable(
                f"{variant.command} is in use on this host, but not installed here: nobody can tell what it drops",
                f"Install it: apt-get install {PACKAGE}",
            )
        try:
            done = await run_program(self._netns, program, "--table", _TABLE)
        except OSError as error:
            raise _Unreadable(f"{variant.command} can't be listed: {error.strerror or error}", "") from error
        if done.returncode:
            words = _words(done.stderr)
            raise _Unreadable(f"{variant.command} is in use, and can't be listed: {words}", _remedy(words))
        return done.stdout.decode(errors="replace")

    async def apply(self, operations: Sequence[Operation]) -> tuple[Failure | None, ...]:
        return tuple([await self._apply_one(operation) for operation in operations])

    async def _apply_one(self, operation: Operation) -> Failure | None:
        item = operation.item
        if not isinstance(item, ForwardRules):
            raise TypeError(f"{item} is nothing of iptables'")
        wanted = item if operation.verb is not Verb.REMOVE else None
        try:
            there = await self._find_ours(item.variant)
            if there == wanted:
                return None
            if (words := await self._restore(item.variant, write_script(there, wanted))) is not None:
                return Failure(errno.EPERM if _remedy(words) else 0, f"{item.variant.command} says: {words}")
            after = await self._find_ours(item.variant)
        except (_Unreadable, OSError) as error:
            return Failure(getattr(error, "errno", None) or 0, str(error))
        if after == wanted:
            return None
        return Failure(0, f"{item.variant.command} lists it otherwise than it was written: {after or 'nothing'}")

    async def _find_ours(self, variant: Variant) -> ForwardRules | None:
        """As it is at this moment, however fresh the last look is."""
        self._looks.pop(variant, None)
        look = await self._look(variant)
        if look.problem is not None:
            raise _Unreadable(look.problem.text, look.problem.remedy)
        return look.listing.ours

    async def _restore(self, variant: Variant, script: str) -> str | None:
        """What iptables says where it refuses."""
        program = find_program(f"{variant.command}-restore")
        if program is None:
            return f"{variant.command}-restore is not installed: it is in the package {PACKAGE}"
        done = await run_program(self._netns, program, "--noflush", *_WAIT, script=script)
        return _words(done.stderr) if done.returncode else None

    @asynccontextmanager
    async def changes(self) -> AsyncGenerator[Hints, None]:
        if self._netfilter is None:
            yield _IptablesHints(self, None)
            return
        async with open_notifications(self._netns, (NFNLGRP_NFTABLES,), NETLINK_NETFILTER) as events:
            yield _IptablesHints(self, events)

    async def has_legacy_changed(self) -> bool:
        """Whether iptables-legacy is otherwise than it was seen last."""
        before, proof = self._looks.get(Variant.LEGACY), self._proof(Variant.LEGACY)
        known = before.listing if before is not None else Listing()
        now = (await self._look_anew(Variant.LEGACY, proof)).listing if proof is not None else Listing()
        return now != known


class _IptablesHints:
    def __init__(self, driver: IptablesDriver, events: Notifications | None) -> None:
        self._driver = driver
        self._events = events
        self._next_look = trio.current_time() + LOOK_EVERY
        """It is kept when a wait is broken off, as it is whenever something else changes."""

    async def wait(self) -> None:
        async with trio.open_nursery() as nursery:

            async def wait_one(change: Callable[[], Awaitable[None]]) -> None:
                await change()
                nursery.cancel_scope.cancel()

            nursery.start_soon(wait_one, self._wait_legacy_changed)
            if self._events is not None:
                nursery.start_soon(wait_one, partial(_wait_chain_changed, self._events))

    async def _wait_legacy_changed(self) -> None:
        while True:
            await trio.sleep_until(self._next_look)
            changed = await self._driver.has_legacy_changed()
            self._next_look = trio.current_time() + LOOK_EVERY
            if changed:
                return


async def _wait_chain_changed(events: Notifications) -> None:
    while True:
        messages = await events.receive()
        if messages is None or any(is_about_chain(each, NFPROTO_IPV4, _TABLE, _CHAIN) for each in messages):
            return


def _read_names() -> frozenset[str]:
    try:
        return frozenset(_NAMES.read_text().split())
    except FileNotFoundError:  # a kernel without iptables-legacy
        return frozenset()
    except PermissionError:  # who is not root may neither see nor change it
        return frozenset()


def _words(said: bytes) -> str:
    """The first line that is not a mere warning."""
    lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
    return next((line for line in lines if not line.startswith("#")), "nothing, and fails")


def _remedy(words: str) -> str:
    if "Permission denied" not in words and "Operation not permitted" not in words:
        return ""
    return "Give overlayd the capability CAP_NET_RAW, too, by which alone iptables-legacy can be asked"
