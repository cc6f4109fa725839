"""The rules of other programs' firewalls, as nft and iptables list them.

A rule is the list of statements that `nft --json` writes for it (libnftables-json(5)).  A line of `iptables-save`
is put into the same form, so that one judge serves both (see conflicts.py).  What is not understood stays in as a
statement that the judge can't tell, and is no error.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from overlayd.core.firewall.iptables import Variant
from overlayd.core.firewall.nftables import FAMILY, TABLE

Statement = Mapping[str, Any]
ChainKey = tuple[str, str, str]
"""Family, table, chain."""

HOOKS = ("forward", "input", "output")
IPTABLES_TABLE = ("ip", "filter")
"""The table `filter` of iptables, as nft calls it."""


@dataclass(frozen=True, slots=True)
class ForeignRule:
    """`name` tells an operator which rule of its chain it is."""

    name: str
    statements: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class BaseChain:
    """A chain at one of HOOKS.  `drops`: its policy.  `variant`: of which iptables it is, if of any."""

    key: ChainKey
    hook: str
    drops: bool
    variant: Variant | None = None


@dataclass(frozen=True, slots=True)
class Ruleset:
    """The base chains of one listing, and the rules of all its chains."""

    bases: tuple[BaseChain, ...] = ()
    chains: Mapping[ChainKey, tuple[ForeignRule, ...]] = field(default_factory=dict)


class RulesetError(ValueError):
    """nft's answer is no listing of a ruleset."""


def read_nft(text: str) -> Ruleset:
    """Read what `nft --json list ruleset` writes: all but our own table.

    Only chains that IPv4 packets can meet count.  Raises RulesetError where the text has another form.
    """
    bases: list[BaseChain] = []
    chains: dict[ChainKey, list[ForeignRule]] = {}
    try:
        for entry in json.loads(text)["nftables"]:
            ((kind, value),) = entry.items()
            if kind not in ("chain", "rule") or value["family"] not in ("ip", "inet"):
                continue
            table = (value["family"], value["table"])
            if table == (FAMILY, TABLE):
                continue
            if kind == "rule":
                rule = ForeignRule(f"the rule with handle {value['handle']}", tuple(map(_one, value["expr"])))
                chains.setdefault((*table, value["chain"]), []).append(rule)
                continue
            key = (*table, value["name"])
            chains.setdefault(key, [])
            if value.get("hook") in HOOKS and value.get("type") in ("filter", "route"):
                bases.append(BaseChain(key, value["hook"], value.get("policy") == "drop"))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise RulesetError(f"nft's answer has another form: {error!r}") from error
    return Ruleset(tuple(bases), {key: tuple(rules) for key, rules in chains.items()})


def _one(statement: Any) -> Statement:
    """Read a statement: most are an object with one name; the few others, such as `"notrack"`, decide nothing."""
    return statement if isinstance(statement, dict) and len(statement) == 1 else {str(statement): None}


# iptables-save --------------------------------------------------------------------------------------------------

_CHAIN = re.compile(r"^:(\S+) (\S+)", re.MULTILINE)
_RULE = re.compile(r"^-A (\S+) (.+)$", re.MULTILINE)
_VERDICTS = {"ACCEPT": "accept", "DROP": "drop", "REJECT": "reject", "RETURN": "return"}
_GO_ON = {"LOG", "NFLOG", "MARK", "CONNMARK", "TCPMSS", "TRACE", "AUDIT"}
_PORT = {"payload": {"protocol": "th", "field": "dport"}}
_STATE = {"ct": {"key": "state"}}
_LEFT = {
    "-s": {"payload": {"protocol": "ip", "field": "saddr"}},
    "-d": {"payload": {"protocol": "ip", "field": "daddr"}},
    "-i": {"meta": {"key": "iifname"}},
    "-o": {"meta": {"key": "oifname"}},
    "-p": {"meta": {"key": "l4proto"}},
    "--dport": _PORT,
    "--dports": _PORT,
    "--ctstate": _STATE,
    "--state": _STATE,
}
_UNKNOWN: Statement = {"xt": {"type": "match", "name": ""}}


def read_iptables(variant: Variant, text: str) -> Ruleset:
    """Read what `iptables-save -t filter` writes."""
    policies = dict(_CHAIN.findall(text))
    chains: dict[ChainKey, list[ForeignRule]] = {(*IPTABLES_TABLE, name): [] for name in policies}
    for chain, line in _RULE.findall(text):
        rules = chains.setdefault((*IPTABLES_TABLE, chain), [])
        rules.append(ForeignRule(f"its rule {len(rules) + 1}", tuple(_translate(line, policies.keys()))))
    bases = (
        BaseChain((*IPTABLES_TABLE, hook.upper()), hook, policies[hook.upper()] == "DROP", variant)
        for hook in HOOKS
        if hook.upper() in policies
    )
    return Ruleset(tuple(bases), {key: tuple(rules) for key, rules in chains.items()})


def _translate(line: str, chains: Collection[str]) -> Iterator[Statement]:
    try:
        words = iter(shlex.split(line))
    except ValueError:
        yield {"unreadable": None}
        return
    operator = "=="
    for word in words:
        if word in ("-j", "-g"):
            yield from _target(word, next(words, ""), chains)
            return  # what follows are options of the target
        if word == "!":
            operator = "!="
            continue
        if word in ("-m", "--comment"):
            next(words, "")
        elif word in _LEFT:
            yield {"match": {"op": operator, "left": _LEFT[word], "right": _right(word, next(words, ""))}}
        else:
            yield _UNKNOWN
        operator = "=="


def _target(option: str, target: str, chains: Collection[str]) -> Iterator[Statement]:
    if target in chains:
        yield {"jump" if option == "-j" else "goto": {"target": target}}
    elif target not in _GO_ON:
        yield {_VERDICTS.get(target, "unknown target"): None}


def _right(option: str, value: str) -> Any:
    match option:
        case "-s" | "-d":
            address, _, length = value.partition("/")
            return {"prefix": {"addr": address, "len": length or "32"}}
        case "-i" | "-o":
            return re.sub(r"\+$", "*", value)
        case "--dport" | "--dports":
            return {"set": [{"range": part.split(":")} if ":" in part else part for part in value.split(",")]}
    return {"set": value.lower().split(",")}
