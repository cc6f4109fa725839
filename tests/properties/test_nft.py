"""The two languages of nft: what is written is harmless, and no answer leads to more than an odd table."""

from __future__ import annotations

import json
import re
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlayd.core.firewall.nftables import COUNTERS, OTHERS, TABLE_KEY, NftChain, NftTable, Sender, senders
from overlayd.core.firewall.policy import masquerade, source_check
from overlayd.core.kernel.driver import Operation, Verb
from overlayd.core.kernel.items import Item, KernelState
from overlayd.host.nft.listing import ListingError, parse_listing
from overlayd.host.nft.script import FEW, assemble, plan_parts

addresses = st.integers(0, (1 << 32) - 1).map(IPv4Address)
prefixes = st.tuples(st.integers(0, (1 << 32) - 1), st.integers(0, 32)).map(lambda p: IPv4Network(p, strict=False))
all_senders = st.builds(Sender, addresses, prefixes)
chains = st.builds(masquerade, prefixes, prefixes) | st.builds(
    source_check, st.integers(1, 65535), st.integers(1, (1 << 24) - 1), st.integers(1, 32), prefixes
)
items: st.SearchStrategy[Item] = st.builds(NftTable, st.integers(1, 32)) | chains | all_senders
operations = st.lists(st.builds(Operation, st.sampled_from(Verb), items), max_size=30)
states = st.lists(items, max_size=30).map(lambda found: KernelState.of({i.key: i for i in found}.values()))

COMMAND = re.compile(
    r"(add|delete) (table|chain|set|counter|rule|element) inet overlayd\b[ a-z0-9_.,/@:;=!&{}-]*", re.ASCII
)


@given(operations, states)
def test_a_script_is_made_of_commands_on_our_table_alone(wanted: list[Operation], there: KernelState) -> None:
    script, _ = assemble(plan_parts(wanted, there))
    for line in script.splitlines():
        assert COMMAND.fullmatch(line), line


@given(operations, states)
def test_each_line_leads_back_to_the_operation_that_it_is_for(wanted: list[Operation], there: KernelState) -> None:
    parts = plan_parts(wanted, there)
    script, owners = assemble(parts)
    lines = ["", *script.splitlines()]
    assert len(owners) == len(lines)
    assert [lines[n] for place in range(len(parts)) for n in range(1, len(lines)) if owners[n] == place] == lines[
        1:
    ]
    done = [number for part in parts for number in part.operations]
    assert len(done) == len(set(done))
    left_out = {wanted[number] for number in range(len(wanted)) if number not in done}
    assert all(o.verb is Verb.REMOVE and o.item.key not in there.by_key for o in left_out)


@given(all_senders, st.integers(1, 32))
def test_each_sender_is_read_back_from_the_set_that_it_is_written_to(sender: Sender, prefixlen: int) -> None:
    there = KernelState.of([NftTable(prefixlen)])
    [part] = plan_parts([Operation(Verb.ADD, sender)], there)
    [line] = part.lines
    _, _, _, _, name, _, outer, _, inner, _ = line.split()
    first, _, last = inner.partition("-")
    element = {"concat": [int(outer), {"range": [int(first), int(last)]} if last else int(first)]}
    sets = [listed_set(named, *([element] if named == name else ())) for named in set_names(prefixlen)]
    assert parse_listing(listing(*sets)) == there | KernelState.of([sender])
    assert bool(last) <= (name == OTHERS)


def test_many_senders_go_by_a_new_set_with_those_that_stay_and_the_chain_that_looks_into_it() -> None:
    own = IPv4Network("10.244.1.0/24")
    chain = source_check(8472, 1, 25, own)
    some = [Sender(IPv4Address(f"10.99.0.{n}"), own) for n in range(FEW + 2)]
    usual = [Sender(IPv4Address(f"10.99.0.{n}"), IPv4Network("10.244.2.0/25")) for n in range(9)]
    there = KernelState.of([NftTable(25), masquerade(own, own), chain, *some, *usual])
    [part] = plan_parts([Operation(Verb.REMOVE, sender) for sender in some[1:]], there)
    assert part.operations == tuple(range(FEW + 1))
    assert [line.split(" inet overlayd ")[0] for line in part.lines] == [
        *("delete chain", "delete set", "add set", "add element"),
        *("add chain", "delete chain", "add chain", *["add rule"] * len(chain.rules)),
    ]
    assert "ip_masq" not in str(part.lines)
    assert part.lines[3].startswith("add element inet overlayd others ")


def test_senders_in_a_hash_set_go_one_by_one_however_many_they_are() -> None:
    own = IPv4Network("10.244.1.0/24")
    some = [Sender(IPv4Address(f"10.99.0.{n}"), own) for n in range(5 * FEW)]
    parts = plan_parts([Operation(Verb.REMOVE, sender) for sender in some], KernelState.of([NftTable(24), *some]))
    assert [line[:40] for part in parts for line in part.lines] == [
        "delete element inet overlayd senders_24 "
    ] * len(some)


def listing(*objects: dict[str, Any]) -> str:
    frame = [{"counter": {"name": name, "packets": 0, "bytes": 0}} for name in COUNTERS]
    table = {"table": {"family": "inet", "name": "overlayd", "handle": 1}}
    return json.dumps({"nftables": [{"metainfo": {}}, table, *frame, *objects]})


def set_names(prefixlen: int = 24) -> list[str]:
    return [senders(prefixlen), "nodes", "others"]


def listed_set(name: str, *elements: Any, **more: Any) -> dict[str, Any]:
    flags = {"flags": ["interval"]} if name == OTHERS else {}
    return {"set": {"name": name, "type": ["integer", "integer"], "elem": list(elements)} | flags | more}


SETS = [listed_set(name) for name in set_names()]
ODD_ELEMENTS: list[tuple[str, list[Any]]] = [
    ("others", [5, {"range": [5, 7]}]),
    ("others", [5, {"range": [5, 8]}]),
    ("others", [{"range": [5, 6]}, 7]),
    ("others", ["1.2.3.4", 7]),
    ("others", [5, 5]),  # belongs to nodes
    ("others", [5, {"range": [0, 255]}]),  # belongs to senders_24
    ("senders_24", [5, 7]),  # no packet matches it
    ("senders_24", [5, {"range": [0, 255]}]),
    ("nodes", [5, 6]),  # a node in another's name
    ("nodes", [5, 0]),
]
ODD = {
    "lacks nodes": [SETS[0], SETS[2]],
    "lacks others": SETS[:2],
    "lacks senders": SETS[1:],
    "has more than one set of senders": [*SETS, listed_set("senders_25")],
    "has a set senders_24 of another type": [listed_set("senders_24", type="ipv4_addr"), *SETS[1:]],
    "has a set nodes of another type": [listed_set("nodes", flags=["interval"]), SETS[0], SETS[2]],
    "has a set others of another type": [listed_set("others", flags=[]), *SETS[:2]],
    "has a set with timeout": [listed_set("senders_24", timeout=5), *SETS[1:]],
    "holds set senders": [*SETS, listed_set("senders")],
    "holds map more": [*SETS, {"map": {"name": "more"}}],
    "holds chain more": [*SETS, {"chain": {"name": "more"}}],
} | {
    f"has the element {json.dumps({'concat': element})} in {name}": [
        *(each for each in SETS if each["set"]["name"] != name),
        listed_set(name, {"concat": element}),
    ]
    for name, element in ODD_ELEMENTS
}


@pytest.mark.parametrize("oddity", ODD)
def test_what_is_no_item_makes_the_table_odd(oddity: str) -> None:
    table = parse_listing(listing(*ODD[oddity])).by_key[TABLE_KEY]
    assert isinstance(table, NftTable)
    assert oddity in table.odd


def test_newer_and_older_forms_mean_the_same() -> None:
    """The set's type and single flags, as nft 1.0.6 lists them and as 1.1.5 does."""
    at = [{"payload": {"base": base, "offset": offset, "len": 32}} for base, offset in (("nh", 96), ("th", 336))]
    kind = {"typeof": {"concat": at}}
    chain = {"name": "ip_masq", "type": "nat", "hook": "postrouting", "prio": 100, "policy": "accept"}
    found = [
        parse_listing(
            listing(
                *(listed_set(name, type=kind_of_set) for name in set_names()[:2]),
                listed_set("others", type=kind_of_set, flags=flags_of_set),
                {"chain": chain},
                {"rule": {"chain": "ip_masq", "expr": [{"masquerade": {"flags": flags}}]}},
            )
        )
        for kind_of_set, flags_of_set, flags in (
            (["integer", "integer"], ["interval"], "fully-random"),
            (kind, "interval", ["fully-random"]),
        )
    ]
    assert found[0] == found[1]
    assert NftTable(24) in found[0].items
    assert "masquerade fully-random }" in str(found[0])


def test_a_rule_that_is_none_of_ours_is_shown_as_it_is() -> None:
    chain = {"name": "ip_masq", "type": "nat", "hook": "postrouting", "prio": 100, "policy": "accept"}
    inner = {"payload": {"tunnel": "vxlan", "protocol": "ip", "field": "saddr"}}
    match = {"match": {"op": "!=", "left": inner, "right": 5}}
    rule = {"chain": "ip_masq", "expr": [match, {"limit": {"rate": 3}}, {"drop": None}], "comment": "foo"}
    [found] = [
        item
        for item in parse_listing(listing(*SETS, {"chain": chain}, {"rule": rule})).items
        if isinstance(item, NftChain)
    ]
    shown = json.dumps(inner, sort_keys=True)
    assert found.rules == (f'{shown} != 5 {{"limit": {{"rate": 3}}}} drop comment "foo"',)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
words = st.sampled_from(
    ["name", "table", "chain", "expr", "elem", "type", "flags", "concat", "range", "match", "left"]
)
objects = st.dictionaries(
    st.sampled_from(["table", "set", "chain", "rule", "counter", "metainfo"]),
    st.dictionaries(
        words, json_values | st.sampled_from(["senders_24", "nodes", "others", "ip_masq", "bad_source"])
    )
    | json_values,
    min_size=1,
    max_size=1,
)


@given(st.lists(objects, max_size=5).map(lambda found: json.dumps({"nftables": found})) | st.text())
def test_no_answer_of_nft_is_more_than_a_table_or_an_error(answer: str) -> None:
    try:
        state = parse_listing(answer)
    except ListingError:
        return
    assert TABLE_KEY in state.by_key
