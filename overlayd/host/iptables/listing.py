"""From `iptables-save` to what concerns us: which rules of FORWARD are ours, and whether anybody else has any.

Each line is one of: a table `*filter`, a chain `:FORWARD DROP [0:0]` with its policy (`-` for a chain that has
none), a rule `-A FORWARD …`, `COMMIT`, a remark.  A rule is written as it would be given to iptables again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from overlayd.core.firewall.iptables import COMMENT, ForwardRules, Variant

_OURS = re.compile(rf'-[sd] [0-9.]+(?:/[0-9]+)? -m comment --comment "?{COMMENT}"? -j ACCEPT')
_CHAIN = re.compile(r"^:(\S+) (\S+)", re.MULTILINE)
_RULE = re.compile(r"^-A (\S+) (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Listing:
    """The table `filter` of one variant.  `ours`: None where there is none of ours.  `in_use`: others have a rule
    in it, or a policy that does not let everything pass."""

    ours: ForwardRules | None = None
    in_use: bool = False


def parse_listing(variant: Variant, text: str) -> Listing:
    """Parse the text that `iptables-save -t filter` writes; lines of another form mean nothing to us."""
    rules = _RULE.findall(text)
    forward = [rule for chain, rule in rules if chain == "FORWARD"]
    ours = [rule for rule in forward if _OURS.fullmatch(rule)]
    strict = any(policy not in ("ACCEPT", "-") for _, policy in _CHAIN.findall(text))
    odd = "behind a rule of somebody else" if forward[: len(ours)] != ours else ""
    return Listing(
        ForwardRules(variant, tuple(rule.replace('"', "") for rule in ours), odd) if ours else None,
        strict or len(rules) > len(ours),
    )


def write_script(there: ForwardRules | None, wanted: ForwardRules | None) -> str:
    """Write the input of `iptables-restore --noflush`: in one step the former rules go, and the desired come
    first."""
    gone = [f"-D FORWARD {rule}" for rule in (there.rules if there is not None else ())]
    come = enumerate(wanted.rules if wanted is not None else (), start=1)
    return "\n".join(["*filter", *gone, *(f"-I FORWARD {place} {rule}" for place, rule in come), "COMMIT", ""])
