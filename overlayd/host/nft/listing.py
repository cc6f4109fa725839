"""From `nft --json list table` to items.

A rule is written down in nft's syntax, as overlayd writes it; what overlayd never writes is shown as JSON, and so
equals no desired one.  What can't be an item, in the table or in its set, makes the table odd.  The form of the
JSON is described in libnftables-json(5).  It differs by version: a single flag is a word or a list of one, and
from 1.1.1 on the type of a set is told by what it is compared with.
"""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from overlayd.core.firewall.nftables import (
    CHAINS,
    COUNTERS,
    NODES,
    OTHERS,
    SENDERS_TYPE,
    NftChain,
    NftItem,
    NftTable,
    Sender,
    senders,
)
from overlayd.core.kernel.items import KernelState

_TYPES = (["integer", "integer"], SENDERS_TYPE)
_LENGTHS = {senders(prefixlen): prefixlen for prefixlen in range(1, 33)}
"""Of the prefixes in a set, by its name."""
_UNTOLD = {"family", "table", "name", "handle"}
"""What nft says of an object beside what makes it what it is."""


class ListingError(ValueError):
    """nft's answer is no listing of a table."""


class _OddError(Exception):
    """Something in the table that is no item."""


def parse_listing(text: str) -> KernelState:
    """Parse the content of the table.  Raises ListingError where the text is not what nft writes."""
    try:
        objects = [_single(entry) for entry in json.loads(text)["nftables"]]
        return KernelState.of(_items(objects))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ListingError(f"nft's answer has another form: {error!r}") from error


def _single(entry: dict[str, Any]) -> tuple[str, Any]:
    ((kind, value),) = entry.items()
    return kind, value


def _items(objects: list[tuple[str, Any]]) -> list[NftItem]:
    heads: dict[str, str] = {}
    rules: dict[str, list[str]] = {}
    sets: dict[str, list[Any]] = {}
    odd: list[str] = []
    missing = set(COUNTERS)
    for kind, value in objects:
        try:
            match kind:
                case "metainfo":
                    pass
                case "table":
                    _judge_extra("table", value)
                case "counter" if value["name"] in COUNTERS:
                    missing.discard(value["name"])
                    _judge_extra(f"counter {value['name']}", value, "packets", "bytes")
                case "set" if value["name"] in (NODES, OTHERS) or value["name"] in _LENGTHS:
                    sets[value["name"]] = value.get("elem", [])
                    _judge_set(value)
                case "chain" if value["name"] in CHAINS:
                    heads[value["name"]] = _head(value)
                case "rule" if value["chain"] in CHAINS:
                    rules.setdefault(value["chain"], []).append(_rule(value))
                case _:
                    raise _OddError(f"holds {kind} {value.get('name', '')}")
        except _OddError as oddity:
            odd.append(str(oddity))
    lengths = [_LENGTHS[name] for name in sets if name in _LENGTHS]
    if len(lengths) > 1:
        odd.append("has more than one set of senders")
    prefixlen = lengths[0] if lengths else 0
    missing |= {NODES, OTHERS, senders(prefixlen)} - sets.keys()
    odd += [f"lacks {name}" for name in sorted(missing)]
    elements, odd_elements = _elements(sets, prefixlen)
    chains = [NftChain(name, head, tuple(rules.get(name, ()))) for name, head in heads.items()]
    return [NftTable(prefixlen, "; ".join(odd + odd_elements)), *chains, *elements]


def _elements(sets: dict[str, list[Any]], prefixlen: int) -> tuple[list[Sender], list[str]]:
    """Return the senders in these sets, and what is wrong with those that are none."""
    found, odd = [], []
    for name, elements in sets.items():
        for element in elements:
            try:
                found.append(_sender(name, element, prefixlen))
            except _OddError as oddity:
                odd.append(str(oddity))
    return found, odd


def _judge_extra(what: str, value: dict[str, Any], *known: str) -> None:
    if extra := value.keys() - _UNTOLD - set(known):
        raise _OddError(f"has a {what} with {', '.join(sorted(extra))}")


def _judge_set(value: dict[str, Any]) -> None:
    _judge_extra("set", value, "type", "flags", "elem")
    match value["type"]:
        case {"typeof": expression}:
            kind: Any = _expression(expression)
        case kind:
            pass
    if kind not in _TYPES or _flags(value) != (["interval"] if value["name"] == OTHERS else []):
        raise _OddError(f"has a set {value['name']} of another type")


def _flags(value: dict[str, Any]) -> list[str]:
    flags = value.get("flags", [])
    return [flags] if isinstance(flags, str) else list(flags)


def _head(chain: dict[str, Any]) -> str:
    """Return the head of a chain; "" for a chain at no hook, which we never make."""
    if "hook" not in chain:
        return ""
    device = f" device {chain['dev']}" if "dev" in chain else ""
    place = f"type {chain['type']} hook {chain['hook']}{device} priority {chain['prio']}"
    return f"{place}; policy {chain['policy']};"


def _sender(name: str, element: Any, prefixlen: int) -> Sender:
    match element:
        case {"concat": [int() as address, {"range": [int() as first, int() as last]}]} if name == OTHERS:
            pass
        case {"concat": [int() as address, int() as first]}:
            last = first | ((1 << 32 - prefixlen) - 1 if name in _LENGTHS else 0)
        case _:
            raise _OddError(f"has the element {json.dumps(element)} in {name}")
    size = last - first + 1
    if size.bit_count() == 1 and first % size == 0:
        sender = Sender(IPv4Address(address), IPv4Network((first, 33 - size.bit_length())))
        if sender.set_in(prefixlen) == name:
            return sender
    raise _OddError(f"has the element {json.dumps(element)} in {name}")


def _rule(rule: dict[str, Any]) -> str:
    words = [_statement(statement) for statement in rule["expr"]]
    if "comment" in rule:
        words.append(f"comment {json.dumps(rule['comment'])}")
    return " ".join(words)


def _statement(statement: dict[str, Any]) -> str:
    match statement:
        case {"match": {"op": op, "left": left, "right": right}}:
            comparison = "" if op == "==" and "&" not in left else f" {op}"
            return f"{_expression(left)}{comparison} {_value(right)}"
        case {"counter": str() as name}:
            return f"counter name {name}"
        case {"masquerade": {"flags": _, **rest} as masquerade} if not rest:
            return f"masquerade {','.join(_flags(masquerade))}"
        case {"accept": None} | {"drop": None} | {"return": None}:
            ((verdict, _),) = statement.items()
            return verdict
    return json.dumps(statement, sort_keys=True)


def _expression(expression: Any) -> str:
    match expression:
        case {"payload": {"protocol": protocol, "field": name, **rest}} if not rest:
            return f"{protocol} {name}"
        case {"payload": {"base": base, "offset": offset, "len": length, **rest}} if not rest:
            return f"@{base},{offset},{length}"
        case {"meta": {"key": key, **rest}} if not rest:
            return f"meta {key}"
        case {"concat": [*parts]}:
            return " . ".join(map(_as_written, parts))
        case {"&": [left, int() as mask]}:
            return f"{_expression(left)} & {mask}"
    return json.dumps(expression, sort_keys=True)


def _as_written(expression: Any) -> str:
    """Undo what nft may do where it knows that the packet is IPv4: it turns a position into the field's name, and
    so into a type that the set does not have.  Such a listing could not be read back."""
    written = _expression(expression)
    return "@nh,96,32" if written == "ip saddr" else written


def _value(value: Any) -> str:
    match value:
        case str() | int():
            return str(value)
        case {"prefix": {"addr": str() as address, "len": int() as length}}:
            return f"{address}/{length}"
    return json.dumps(value, sort_keys=True)
