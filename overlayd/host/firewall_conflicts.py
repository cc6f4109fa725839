"""What other people's firewalls are like on this host, from all that can be asked.

The whole ruleset of nft may be long, and others may change it all the time; so it is read again only when a
transaction came since, and not more often than every few seconds.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import trio

from overlayd.core.firewall.conflicts import ForeignFirewalls, Ruleset
from overlayd.core.firewall.iptables import Variant
from overlayd.host.iptables.driver import IptablesDriver
from overlayd.host.iptables.ruleset import parse_ruleset as parse_iptables
from overlayd.host.netlink.netns import in_netns
from overlayd.host.nft.netfilter import Netfilter, open_netfilter
from overlayd.host.nft.program import run_nft
from overlayd.host.nft.ruleset import RulesetError, parse_ruleset

LOOK_EVERY = 10.0
"""Seconds between two listings of the ruleset, at least."""
_BRIDGED = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
"""Whether IPv4 packets between the ports of a bridge pass the filters, too; there once br_netfilter is loaded."""


async def no_foreign_firewalls() -> ForeignFirewalls:
    """What there is on a host where nobody has a firewall."""
    return ForeignFirewalls()


class ForeignFirewallReader:
    def __init__(self, iptables: IptablesDriver, netfilter: Netfilter | None, netns: str | None) -> None:
        self._iptables = iptables
        self._netfilter = netfilter
        self._netns = netns
        self._listed: tuple[int, float, Ruleset] | None = None

    async def look(self) -> ForeignFirewalls:
        """Raises OSError where the kernel can't be asked."""
        found = await self._iptables.find_in_use()
        rulesets = (await self._read_nft(), parse_iptables(Variant.LEGACY, found.legacy))
        return ForeignFirewalls(found.variants, rulesets, in_netns(self._netns, _is_bridged), found.problems)

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
        """What can't be listed can't be judged; the daemon says so itself where it needs nft."""
        try:
            ran = await run_nft(self._netns, "--json", "--terse", "--stateless", "list", "ruleset")
            return parse_ruleset(ran.out) if ran.out else Ruleset()
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
    """In this network namespace, or in another one (see `in_netns`)."""
    with open_netfilter(netns) as netfilter:
        iptables = IptablesDriver(netfilter, netns)
        yield iptables, ForeignFirewallReader(iptables, netfilter, netns)
