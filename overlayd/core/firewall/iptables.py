"""The two rules that overlayd has in iptables: packets from the network and to it are accepted, first of all.

Docker, and many a hardened host, let FORWARD drop all that no rule accepts.  No table of our own helps against
that: a packet passes only if every filter lets it.  So the two rules stand in the others' chain, before all that
others put there, in each *variant* of iptables that is in use.  There are two variants, which know nothing of each
other: `nft` keeps its tables in nf_tables, `legacy` in the kernel's older place.  What is not in use drops
nothing, and is left alone.

Ours is a rule of FORWARD that accepts by one address and bears the comment `overlayd`: nothing more, nothing
less.  A restarted daemon knows them by that.  All of a variant's are one item, as their place in the chain counts,
too.  IPv4 alone, as nothing else is carried yet.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import ClassVar

from overlayd.core.kernel.items import Item, Key, Rank
from overlayd.core.network.addresses import IPNetwork

COMMENT = "overlayd"


class Variant(enum.Enum):
    """A variant of iptables: `iptables-nft` or `iptables-legacy`."""

    NFT = "nft"
    LEGACY = "legacy"

    @property
    def command(self) -> str:
        return f"iptables-{self.value}"


@dataclass(frozen=True, slots=True)
class ForwardRules(Item):
    """Our rules in FORWARD, as `iptables-save` writes them behind the name of the chain.  `odd` says what is wrong
    with their place; no desired one is odd."""

    noun: ClassVar[str] = "forward-rules"
    rank: ClassVar[int] = Rank.HOST

    variant: Variant
    rules: tuple[str, ...]
    odd: str = ""

    @property
    def key(self) -> Key:
        return ("forward-rules", self.variant.value)

    def __str__(self) -> str:
        return f"{self.variant.command} FORWARD {'; '.join(self.rules)}" + (f" ({self.odd})" if self.odd else "")


def accept_rule(side: str, network: IPNetwork) -> str:
    """Accept what comes from the network (`side` -s) or goes to it (-d)."""
    return f"{side} {network} -m comment --comment {COMMENT} -j ACCEPT"


def forward_rules(variant: Variant, network: IPNetwork) -> ForwardRules:
    return ForwardRules(variant, (accept_rule("-s", network), accept_rule("-d", network)))
