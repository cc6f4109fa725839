"""The firewalls of other programs on this host, as far as they can be read.

The whole ruleset of nft may be long, and others may change it all the time; so it is read again only when a
transaction came since, and not more often than every few seconds.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import trio

from overlayd.core.firewall.conflicts import ForeignFirewalls
from overlayd.core.firewall.foreign_rules import (
    IPTABLES_TABLE,
    Ruleset,
    RulesetError,
    read_iptables,
    read_nft,
)
from overlayd.core.firewall.iptables import Variant
from overlayd.host.iptables.driver import IptablesDriver
from overlayd.host.netlink.netns import in_netns
from overlayd.host.nft.netfilter import Netfilter, open_netfilter
from overlayd.host.nft.program import run_nft

LOOK_EVERY = 10.0
"""Seconds between two listings of the ruleset, at least."""
_BRIDGED = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
"""Whether IPv4 packets between the ports of a bridge pass the filters, too; there once br_netfilter is loaded."""


async def no_foreign_firewalls() -> ForeignFirewalls:
    """Return the value of a host without a firewall."""
    return ForeignFirewalls()


class ForeignFirewallReader:
    def __init__(self, iptables: IptablesDriver, netfilter: Netfilter | None, netns: str | None) -> None:
        self._iptables = iptables
        self._netfilter = netfilter
        self._netns = netns
        self._saved: dict[Variant, tuple[str, Ruleset]] = {}
        self._listed: tuple[int, float, Ruleset] | None = None

    async def look(self) -> ForeignFirewalls:
        """Read the firewalls.  Raises OSError where the kernel can't be asked."""
        found = await self._iptables.find_in_use()
        iptables = {variant: self._read_iptables(variant, text) for variant, text in found.texts.items()}
        nft = await self._read_nft()
        if Variant.NFT in iptables and iptables[Variant.NFT].bases:  # of its extensions nft tells but the names
            bases = (base for base in nft.bases if base.key[:2] != IPTABLES_TABLE)
            nft = replace(nft, bases=tuple(bases))
        rulesets = (nft, *iptables.values())
        return ForeignFirewalls(found.variants, rulesets, in_netns(self._netns, _is_bridged), found.problems)

    def _read_iptables(self, variant: Variant, text: str) -> Ruleset:
        """Read a listing, unless it is the one that was read before."""
        saved = self._saved.get(variant)
        if saved is None or saved[0] != text:
            saved = self._saved[variant] = (text, read_iptables(variant, text))
        return saved[1]

    async def _read_nft(self) -> Ruleset:
        """Empty where there is no nft to tell: that is said where something is asked of it."""
        generation = self._netfilter.find_generation() if self._netfilter is not None else None
        if generation is None:
            return Ruleset()
        now = trio.current_time()
        if self._listed is not None:
            before, at, ruleset = self._listed
            if before == generation or now - at < LOOK_EVERY:
                return ruleset
        self._listed = (generation, now, await self._list())
        return self._listed[2]

    async def _list(self) -> Ruleset:
        """List the ruleset; an unreadable one is not judged, and the daemon says so itself where it needs nft."""
        try:
            ran = await run_nft(self._netns, "--json", "--terse", "--stateless", "list", "ruleset")
            return read_nft(ran.out) if ran.out else Ruleset()
        except (OSError, RulesetError):
            return Ruleset()


def _is_bridged() -> bool:
    try:
        return _BRIDGED.read_text().strip() == "1"
    except OSError:
        return False


@contextmanager
def open_foreign_firewall_reader(
    netns: str | None = None,
) -> Generator[tuple[IptablesDriver, ForeignFirewallReader], None, None]:
    """Open a reader of this network namespace, or of another one (see `in_netns`)."""
    with open_netfilter(netns) as netfilter:
        iptables = IptablesDriver(netfilter, netns)
        yield iptables, ForeignFirewallReader(iptables, netfilter, netns)
