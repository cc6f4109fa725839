"""From `iptables-save` to what the judge of other people's firewalls walks through.

For `iptables-legacy`, of which nft knows nothing.  What is not understood is no error, but unknown: see
`core/foreign_firewall.py`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterator
from ipaddress import IPv4Network

from overlayd.core.firewall.conflicts import (
    BaseChain,
    ChainKey,
    ChainVerdict,
    ForeignRule,
    RuleMatch,
    Ruleset,
    Span,
    Subject,
)
from overlayd.core.firewall.iptables import Variant

_PLACE = ("ip", "filter")
_VERDICTS = {
    "ACCEPT": ChainVerdict.ACCEPT,
    "DROP": ChainVerdict.DROP,
    "REJECT": ChainVerdict.DROP,
    "RETURN": ChainVerdict.RETURN,
    **dict.fromkeys(("LOG", "NFLOG", "MARK", "CONNMARK", "TCPMSS", "TRACE", "AUDIT"), ChainVerdict.NONE),
}
_NAMES = {"-i": Subject.COMES_BY, "-o": Subject.LEAVES_BY}
_ADDRESSES = {"-s": Subject.SOURCE, "-d": Subject.DESTINATION}
_STATES = ("--ctstate", "--state")
_CHAIN = re.compile(r"^:(\S+) (\S+)", re.MULTILINE)
_RULE = re.compile(r"^-A (\S+) (.+)$", re.MULTILINE)


def parse_ruleset(variant: Variant, text: str) -> Ruleset:
    """Of the text that `iptables-save -t filter` writes."""
    policies = dict(_CHAIN.findall(text))
    chains: dict[ChainKey, list[ForeignRule]] = {(*_PLACE, name): [] for name in policies}
    for chain, line in _RULE.findall(text):
        rules = chains.setdefault((*_PLACE, chain), [])
        rules.append(_rule(line, f"its rule {len(rules) + 1}", policies.keys()))
    bases = (
        [BaseChain((*_PLACE, "FORWARD"), policies["FORWARD"] == "DROP", variant)] if "FORWARD" in policies else []
    )
    return Ruleset(tuple(bases), {key: tuple(rules) for key, rules in chains.items()})


def _rule(line: str, name: str, chains: Collection[str]) -> ForeignRule:
    try:
        words = iter(shlex.split(line))
    except ValueError:
        return ForeignRule((), ChainVerdict.UNKNOWN, name=name)
    conditions: list[RuleMatch] = []
    negated = False
    for word in words:
        if word in ("-j", "-g"):
            return _ending(tuple(conditions), word, next(words, ""), name, chains)
        if word == "!":
            negated = True
            continue
        conditions += _conditions(word, words, negated)
        negated = False
    return ForeignRule(tuple(conditions), ChainVerdict.NONE, name=name)


def _ending(
    conditions: tuple[RuleMatch, ...], option: str, target: str, name: str, chains: Collection[str]
) -> ForeignRule:
    """What follows the target are options of its own."""
    if target in _VERDICTS:
        return ForeignRule(conditions, _VERDICTS[target], name=name)
    if target in chains:
        return ForeignRule(conditions, ChainVerdict.JUMP if option == "-j" else ChainVerdict.GOTO, target, name)
    return ForeignRule(conditions, ChainVerdict.UNKNOWN, name=name)


def _conditions(word: str, words: Iterator[str], negated: bool) -> Iterator[RuleMatch]:
    if word == "-m":
        next(words, "")  # which extension: its conditions follow
    elif word == "--comment":
        next(words, "")
    elif word in _ADDRESSES:
        span = _span(next(words, ""))
        yield RuleMatch(_ADDRESSES[word], (span,) if span else (), negated, whole=span is not None)
    elif word in _NAMES:
        yield RuleMatch(_NAMES[word], (re.sub(r"\+$", "*", next(words, "")),), negated)
    elif word == "-p":
        yield RuleMatch(Subject.PROTOCOL, (next(words, ""),), negated)
    elif word in _STATES:
        yield RuleMatch(Subject.STATE, tuple(next(words, "").lower().split(",")), negated)
    else:
        yield RuleMatch(Subject.UNKNOWN)


def _span(text: str) -> Span | None:
    try:
        network = IPv4Network(text)
    except ValueError:
        return None
    return int(network.network_address), int(network.broadcast_address)
