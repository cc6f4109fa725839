"""The driver of what iptables keeps for us: the two rules, in each of its variants.

Nothing is made by looking: `iptables-nft` is asked only where its table is there, and `iptables-legacy`, which
makes a table by the mere question, only where the kernel says that it has one.  A listing of the former is
believed as long as the generation of nf_tables is the same.  Of the latter no event tells: while it is in use it
is listed every few seconds, and a difference is told as a change.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from overlayd.core.firewall.iptables import ForwardRules, Variant
from overlayd.core.kernel.driver import ALL, Driver, Failure, Keys, OnChange, Operation, Scope, Verb
from overlayd.core.kernel.items import KernelState
from overlayd.core.status.problem import Problem
from overlayd.host.iptables.listing import Listing, parse_listing, write_script
from overlayd.host.netlink.connection import open_notifications, tell_changes
from overlayd.host.netlink.netns import in_netns
from overlayd.host.netlink.wire import Message
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

_EVERYTHING: Keys = frozenset(ForwardRules(variant, ()).key for variant in Variant)


@dataclass(frozen=True, slots=True)
class InUse:
    """The variants that other programs use, and why some other one could not be read.  `texts` are what
    iptables-save has written, "" where there is nothing."""

    variants: frozenset[Variant] = frozenset()
    texts: Mapping[Variant, str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class _Look:
    """A listing, and `proof` of its instant: the generation of nf_tables, or a time of trio's clock."""

    proof: float
    listing: Listing
    problem: Problem | None = None
    text: str = ""


def _is_good_for(variant: Variant, look: _Look, proof: float) -> bool:
    """Tell whether it says what another look would say now, as far as can be known."""
    if variant is Variant.LEGACY:
        return proof - look.proof < LOOK_EVERY
    return look.proof == proof and look.problem is None


class _Unreadable(Exception):
    """The variant can't be listed; the text is a sentence, `remedy` another one."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.remedy = remedy


class IptablesDriver(Driver):
    """Ours are the rules with our comment, in both variants, whatever the scope."""

    kinds = frozenset({ForwardRules})

    def __init__(self, netfilter: Netfilter | None, netns: str | None) -> None:
        self._netfilter = netfilter
        self._netns = netns
        self._looks: dict[Variant, _Look] = {}

    async def observe(self, scope: Scope, keys: Keys = ALL) -> KernelState:
        found = [(await self._look(variant)).listing.ours for variant in Variant]
        return KernelState.of(rules for rules in found if rules is not None)

    async def find_in_use(self) -> InUse:
        """Find the variants that other programs use.  Raises OSError."""
        looks = {variant: await self._look(variant) for variant in Variant}
        return InUse(
            frozenset(variant for variant, look in looks.items() if look.listing.in_use),
            {variant: look.text for variant, look in looks.items()},
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
        """Return the proof of this instant; None where the variant has no table to read."""
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
            raise TypeError(f"iptables does not keep {item}")
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
        """Find our rules as they are at this moment, however fresh the last listing is."""
        self._looks.pop(variant, None)
        look = await self._look(variant)
        if look.problem is not None:
            raise _Unreadable(look.problem.text, look.problem.remedy)
        return look.listing.ours

    async def _restore(self, variant: Variant, script: str) -> str | None:
        """Run iptables-restore; return its words where it refuses."""
        program = find_program(f"{variant.command}-restore")
        if program is None:
            return f"{variant.command}-restore is not installed: it is in the package {PACKAGE}"
        done = await run_program(self._netns, program, "--noflush", *_WAIT, script=script)
        return _words(done.stderr) if done.returncode else None

    @asynccontextmanager
    async def watch(self, on_change: OnChange) -> AsyncGenerator[None, None]:
        async with AsyncExitStack() as stack:
            nursery = await stack.enter_async_context(trio.open_nursery())
            if self._netfilter is not None:
                opening = open_notifications(self._netns, (NFNLGRP_NFTABLES,), NETLINK_NETFILTER)
                notifications = await stack.enter_async_context(opening)
                nursery.start_soon(tell_changes, notifications, _concerned, on_change)
            nursery.start_soon(self._watch_legacy, on_change)
            yield
            nursery.cancel_scope.cancel()

    async def _watch_legacy(self, on_change: OnChange) -> None:
        while True:
            await trio.sleep(LOOK_EVERY)
            if await self._has_legacy_changed():
                on_change(_EVERYTHING)

    async def _has_legacy_changed(self) -> bool:
        """Tell whether iptables-legacy is otherwise than it was seen last."""
        before, proof = self._looks.get(Variant.LEGACY), self._proof(Variant.LEGACY)
        known = before.listing if before is not None else Listing()
        now = (await self._look_anew(Variant.LEGACY, proof)).listing if proof is not None else Listing()
        return now != known


def _concerned(message: Message) -> Keys:
    return _EVERYTHING if is_about_chain(message, NFPROTO_IPV4, _TABLE, _CHAIN) else frozenset()


def _read_names() -> frozenset[str]:
    try:
        return frozenset(_NAMES.read_text().split())
    except FileNotFoundError:  # a kernel without iptables-legacy
        return frozenset()
    except PermissionError:  # who is not root may neither see nor change it
        return frozenset()


def _words(said: bytes) -> str:
    """Return the first line that is not a mere warning."""
    lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
    return next((line for line in lines if not line.startswith("#")), "nothing, and fails")


def _remedy(words: str) -> str:
    if "Permission denied" not in words and "Operation not permitted" not in words:
        return ""
    return "Give overlayd the capability CAP_NET_RAW, too, by which alone iptables-legacy can be asked"
