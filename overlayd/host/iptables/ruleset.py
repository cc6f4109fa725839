"""From `iptables-save` to what the judge of other people's firewalls walks through.

For `iptables-legacy`, of which nft knows nothing.  What is not understood is no error, but unknown: see
`core/foreign_firewall.py`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterator
from ipaddress import IPv4Network

from overlayd.core.foreign_firewall import Base, ChainKey, Condition, Rule, Ruleset, Span, Subject, Verdict
from overlayd.core.iptables import Variant

_PLACE = ("ip", "filter")
_VERDICTS = {
    "ACCEPT": Verdict.ACCEPT,
    "DROP": Verdict.DROP,
    "REJECT": Verdict.DROP,
    "RETURN": Verdict.RETURN,
    **dict.fromkeys(("LOG", "NFLOG", "MARK", "CONNMARK", "TCPMSS", "TRACE", "AUDIT"), Verdict.NONE),
}
_NAMES = {"-i": Subject.COMES_BY, "-o": Subject.LEAVES_BY}
_ADDRESSES = {"-s": Subject.SOURCE, "-d": Subject.DESTINATION}
_STATES = ("--ctstate", "--state")
_CHAIN = re.compile(r"^:(\S+) (\S+)", re.MULTILINE)
_RULE = re.compile(r"^-A (\S+) (.+)$", re.MULTILINE)


def parse_ruleset(variant: Variant, text: str) -> Ruleset:
    """Of the text that `iptables-save -t filter` writes."""
    policies = dict(_CHAIN.findall(text))
    chains: dict[ChainKey, list[Rule]] = {(*_PLACE, name): [] for name in policies}
    for chain, line in _RULE.findall(text):
        rules = chains.setdefault((*_PLACE, chain), [])
        rules.append(_rule(line, f"its rule {len(rules) + 1}", policies.keys()))
    bases = [Base((*_PLACE, "FORWARD"), policies["FORWARD"] == "DROP", variant)] if "FORWARD" in policies else []
    return Ruleset(tuple(bases), {key: tuple(rules) for key, rules in chains.items()})


def _rule(line: str, name: str, chains: Collection[str]) -> Rule:
    try:
        words = iter(shlex.split(line))
    except ValueError:
        return Rule((), Verdict.UNKNOWN, name=name)
    conditions: list[Condition] = []
    negated = False
    for word in words:
        if word in ("-j", "-g"):
            return _ending(tuple(conditions), word, next(words, ""), name, chains)
        if word == "!":
            negated = True
            continue
        conditions += _conditions(word, words, negated)
        negated = False
    return Rule(tuple(conditions), Verdict.NONE, name=name)


def _ending(
    conditions: tuple[Condition, ...], option: str, target: str, name: str, chains: Collection[str]
) -> Rule:
    """What follows the target are options of its own."""
    if target in _VERDICTS:
        return Rule(conditions, _VERDICTS[target], name=name)
    if target in chains:
        return Rule(conditions, Verdict.JUMP if option == "-j" else Verdict.GOTO, target, name)
    return Rule(conditions, Verdict.UNKNOWN, name=name)


def _conditions(word: str, words: Iterator[str], negated: bool) -> Iterator[Condition]:
    if word == "-m":
        next(words, "")  # which extension: its conditions follow
    elif word == "--comment":
        next(words, "")
    elif word in _ADDRESSES:
        span = _span(next(words, ""))
        yield Condition(_ADDRESSES[word], (span,) if span else (), negated, whole=span is not None)
    elif word in _NAMES:
        yield Condition(_NAMES[word], (re.sub(r"\+$", "*", next(words, "")),), negated)
    elif word == "-p":
        yield Condition(Subject.PROTOCOL, (next(words, ""),), negated)
    elif word in _STATES:
        yield Condition(Subject.STATE, tuple(next(words, "").lower().split(",")), negated)
    else:
        yield Condition(Subject.UNKNOWN)


def _span(text: str) -> Span | None:
    try:
        network = IPv4Network(text)
    except ValueError:
        return None
    return int(network.network_address), int(network.broadcast_address)
