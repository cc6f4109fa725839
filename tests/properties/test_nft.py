"""The two languages of nft: what is written is harmless, and no answer leads to more than an odd table."""

from __future__ import annotations

import json
import re
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlayd.core.firewall.nftables import COUNTERS, NftChain, NftTable, Sender
from overlayd.core.firewall.policy import masquerade, source_check
from overlayd.core.kernel.driver import Operation, Verb
from overlayd.core.kernel.items import Item, KernelState
from overlayd.host.nft.listing import ListingError, parse_listing
from overlayd.host.nft.script import FEW, assemble, plan_parts

addresses = st.integers(0, (1 << 32) - 1).map(IPv4Address)
prefixes = st.tuples(st.integers(0, (1 << 32) - 1), st.integers(0, 32)).map(lambda p: IPv4Network(p, strict=False))
all_senders = st.builds(Sender, addresses, prefixes)
chains = st.builds(masquerade, prefixes, prefixes) | st.builds(
    source_check, st.integers(1, 65535), st.integers(1, (1 << 24) - 1), prefixes
)
items: st.SearchStrategy[Item] = st.just(NftTable()) | chains | all_senders
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


def test_many_senders_go_by_a_new_set_with_those_that_stay_and_the_chain_that_looks_into_it() -> None:
    own = IPv4Network("10.244.1.0/24")
    chain = source_check(8472, 1, own)
    some = [Sender(IPv4Address(f"10.99.0.{n}"), own) for n in range(FEW + 2)]
    there = KernelState.of([NftTable(), masquerade(own, own), chain, *some])
    [part] = plan_parts([Operation(Verb.REMOVE, sender) for sender in some[1:]], there)
    assert part.operations == tuple(range(FEW + 1))
    assert [line.split(" inet overlayd ")[0] for line in part.lines] == [
        *("delete chain", "delete set", "add set", "add element"),
        *("add chain", "delete chain", "add chain", *["add rule"] * len(chain.rules)),
    ]
    assert "ip_masq" not in str(part.lines)


def listing(*objects: dict[str, Any]) -> str:
    frame = [{"counter": {"name": name, "packets": 0, "bytes": 0}} for name in COUNTERS]
    table = {"table": {"family": "inet", "name": "overlayd", "handle": 1}}
    return json.dumps({"nftables": [{"metainfo": {}}, table, *frame, *objects]})


def listed_set(*elements: Any, **more: Any) -> dict[str, Any]:
    known = {"name": "senders", "type": ["ipv4_addr", "integer"], "flags": ["interval"], "elem": list(elements)}
    return {"set": known | more}


ODD = {
    "lacks senders": [],
    "has a set senders of another type": [listed_set(type="ipv4_addr")],
    "has a set with timeout": [listed_set(timeout=5)],
    "holds map others": [listed_set(), {"map": {"name": "others"}}],
    "holds chain others": [listed_set(), {"chain": {"name": "others"}}],
    'has the element {"concat": ["1.2.3.4", {"range": [5, 7]}]} in senders': [
        listed_set({"concat": ["1.2.3.4", {"range": [5, 7]}]})
    ],
    'has the element {"concat": ["1.2.3.4", {"range": [5, 8]}]} in senders': [
        listed_set({"concat": ["1.2.3.4", {"range": [5, 8]}]})
    ],
}


@pytest.mark.parametrize("oddity", ODD)
def test_what_is_no_item_makes_the_table_odd(oddity: str) -> None:
    table = parse_listing(listing(*ODD[oddity])).by_key[NftTable().key]
    assert isinstance(table, NftTable)
    assert oddity in table.odd


def test_newer_and_older_forms_mean_the_same() -> None:
    """The set's type and single flags, as nft 1.0.6 lists them and as 1.1.5 does."""
    source = {"payload": {"protocol": "ip", "field": "saddr"}}
    kind = {"typeof": {"concat": [source, {"payload": {"base": "th", "offset": 336, "len": 32}}]}}
    chain = {"name": "ip_masq", "type": "nat", "hook": "postrouting", "prio": 100, "policy": "accept"}
    found = [
        parse_listing(
            listing(
                listed_set(type=kind_of_set, flags=flags_of_set),
                {"chain": chain},
                {"rule": {"chain": "ip_masq", "expr": [{"masquerade": {"flags": flags}}]}},
            )
        )
        for kind_of_set, flags_of_set, flags in (
            (["ipv4_addr", "integer"], ["interval"], "fully-random"),
            (kind, "interval", ["fully-random"]),
        )
    ]
    assert found[0] == found[1]
    assert NftTable() in found[0].items
    assert "masquerade fully-random }" in str(found[0])


def test_a_rule_that_is_none_of_ours_is_shown_as_it_is() -> None:
    chain = {"name": "ip_masq", "type": "nat", "hook": "postrouting", "prio": 100, "policy": "accept"}
    inner = {"payload": {"tunnel": "vxlan", "protocol": "ip", "field": "saddr"}}
    match = {"match": {"op": "!=", "left": inner, "right": 5}}
    rule = {"chain": "ip_masq", "expr": [match, {"limit": {"rate": 3}}, {"drop": None}], "comment": "foo"}
    [found] = [
        item
        for item in parse_listing(listing(listed_set(), {"chain": chain}, {"rule": rule})).items
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
    st.dictionaries(words, json_values | st.sampled_from(["senders", "ip_masq", "bad_source"])) | json_values,
    min_size=1,
    max_size=1,
)


@given(st.lists(objects, max_size=5).map(lambda found: json.dumps({"nftables": found})) | st.text())
def test_no_answer_of_nft_is_more_than_a_table_or_an_error(answer: str) -> None:
    try:
        state = parse_listing(answer)
    except ListingError:
        return
    assert NftTable().key in state.by_key
