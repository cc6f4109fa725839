"""From `nft --json list ruleset` to what the judge of other people's firewalls walks through.

Only chains that IPv4 packets can meet at the hook `forward` matter, and those that they lead to.  What is not
understood is no error, but unknown: see `core/foreign_firewall.py`.  The form of the JSON is described in
libnftables-json(5); `xt` is an extension of iptables', of which nft tells no more than the name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from typing import Any

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
from overlayd.core.firewall.nftables import FAMILY, TABLE

_FAMILIES = ("ip", "inet")
_OF_IPTABLES = ("ip", "filter", "FORWARD")
"""What `iptables-nft` calls its chain."""
_VERDICTS = {
    "accept": ChainVerdict.ACCEPT,
    "drop": ChainVerdict.DROP,
    "return": ChainVerdict.RETURN,
    "reject": ChainVerdict.DROP,
}
_WITHOUT_VERDICT = {"counter", "log", "mangle", "set", "map", "notrack", "flow", "continue", "comment", "secmark"}
_META = {
    "iifname": Subject.COMES_BY,
    "iif": Subject.COMES_BY,
    "oifname": Subject.LEAVES_BY,
    "oif": Subject.LEAVES_BY,
    "nfproto": Subject.FAMILY,
    "l4proto": Subject.PROTOCOL,
}
_OTHER_PROTOCOLS = {"udp", "udplite", "sctp", "dccp", "icmp", "igmp", "esp", "ah", "comp"}
_ADDRESSES = {"saddr": Subject.SOURCE, "daddr": Subject.DESTINATION}
_HEADER = {**_ADDRESSES, "protocol": Subject.PROTOCOL}
_CONNECTION = {"state": Subject.STATE, "status": Subject.STATUS}
_UNKNOWN = RuleMatch(Subject.UNKNOWN)


class RulesetError(ValueError):
    """nft's answer is no listing of a ruleset."""


def parse_ruleset(text: str) -> Ruleset:
    """All but our own table.  Raises RulesetError where the text is not what nft writes."""
    bases: list[BaseChain] = []
    chains: dict[ChainKey, list[ForeignRule]] = {}
    try:
        for entry in json.loads(text)["nftables"]:
            ((kind, value),) = entry.items()
            if kind not in ("chain", "rule") or value["family"] not in _FAMILIES:
                continue
            table = (value["family"], value["table"])
            if table == (FAMILY, TABLE):
                continue
            if kind == "chain":
                chains.setdefault((*table, value["name"]), [])
                if value.get("hook") == "forward" and value.get("type") == "filter":
                    chain = (*table, value["name"])
                    variant = Variant.NFT if chain == _OF_IPTABLES else None
                    bases.append(BaseChain(chain, value.get("policy") == "drop", variant))
            else:
                chains.setdefault((*table, value["chain"]), []).extend(_rules(value))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise RulesetError(f"nft's answer has another form: {error!r}") from error
    return Ruleset(tuple(bases), {key: tuple(rules) for key, rules in chains.items()})


def _rules(rule: dict[str, Any]) -> Iterator[ForeignRule]:
    """More than one where a map of verdicts stands in it."""
    name = f"the rule with handle {rule['handle']}"
    conditions: list[RuleMatch] = []
    for statement in rule["expr"]:
        ((kind, value),) = statement.items()
        if kind == "match":
            conditions.append(_condition(value["left"], value["op"], value["right"]))
        elif kind == "xt" and value["type"] == "match":
            if value["name"] != "comment":
                conditions.append(_UNKNOWN)
        elif kind == "xt":
            verdict = ChainVerdict.DROP if value["name"] == "REJECT" else ChainVerdict.UNKNOWN
            yield ForeignRule(tuple(conditions), verdict, name=name)
        elif kind == "vmap":
            yield from _mapped(value, tuple(conditions), name)
        elif kind in ("jump", "goto"):
            yield ForeignRule(tuple(conditions), ChainVerdict(kind), value["target"], name)
        elif kind in _VERDICTS:
            yield ForeignRule(tuple(conditions), _VERDICTS[kind], name=name)
        elif kind in ("limit", "quota", "ct count"):
            conditions.append(_UNKNOWN)
        elif kind not in _WITHOUT_VERDICT:
            yield ForeignRule(tuple(conditions), ChainVerdict.UNKNOWN, name=name)


def _mapped(value: dict[str, Any], conditions: tuple[RuleMatch, ...], name: str) -> Iterator[ForeignRule]:
    """A map of verdicts, as a rule for each of its elements: no two of them are met by one packet."""
    data = value["data"]
    if not isinstance(data, dict) or not isinstance(data.get("set"), list):
        yield ForeignRule(
            conditions, ChainVerdict.UNKNOWN, name=name
        )  # a named map, of which the elements are not listed
        return
    for key, verdict in data["set"]:
        ((kind, inner),) = verdict.items()
        met = (*conditions, _condition(value["key"], "==", key))
        if kind in ("jump", "goto"):
            yield ForeignRule(met, ChainVerdict(kind), inner["target"], name)
        else:
            yield ForeignRule(met, _VERDICTS.get(kind, ChainVerdict.UNKNOWN), name=name)


def _condition(left: Any, operator: str, right: Any) -> RuleMatch:
    match left:
        case {"payload": {"protocol": "ip6" | "icmpv6"}}:
            return RuleMatch(Subject.FAMILY, ("ipv6",))
        case {"payload": {"protocol": protocol}} if protocol in _OTHER_PROTOCOLS:
            return RuleMatch(Subject.PROTOCOL, (protocol,))
    subject = _subject(left)
    if subject is Subject.UNKNOWN or operator not in ("==", "!=", "in"):
        return _UNKNOWN
    parts = _parts(right)
    values = [_span(part) if subject in _ADDRESSES.values() else _word(part) for part in parts]
    known = tuple(value for value in values if value is not None)
    return RuleMatch(subject, known, operator == "!=", whole=len(known) == len(values))


def _subject(left: Any) -> Subject:
    match left:
        case {"meta": {"key": key}}:
            return _META.get(key, Subject.UNKNOWN)
        case {"payload": {"protocol": "ip", "field": name}}:
            return _HEADER.get(name, Subject.UNKNOWN)
        case {"ct": {"key": key, **rest}} if not rest:
            return _CONNECTION.get(key, Subject.UNKNOWN)
    return Subject.UNKNOWN


def _parts(right: Any) -> list[Any]:
    match right:
        case {"set": list() as elements}:
            return elements
        case list():
            return right
    return [right]


def _span(value: Any) -> Span | None:
    """The addresses of an element; None where nft writes something else, such as the name of a set."""
    try:
        match value:
            case {"prefix": {"addr": str() as address, "len": int() as length}}:
                network = IPv4Network(f"{address}/{length}")
                return int(network.network_address), int(network.broadcast_address)
            case {"range": [str() as first, str() as last]}:
                return int(IPv4Address(first)), int(IPv4Address(last))
            case str():
                return int(IPv4Address(value)), int(IPv4Address(value))
            case {"elem": {"val": inner}}:
                return _span(inner)
    except (AddressValueError, ValueError):
        return None
    return None


def _word(value: Any) -> str | None:
    match value:
        case str() if not value.startswith("@"):
            return value
        case {"elem": {"val": str() as inner}}:
            return inner
    return None
