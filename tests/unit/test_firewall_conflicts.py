"""The judge of other programs' firewalls: a drop is named only where the packet has no other way."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlayd.core.firewall.conflicts import ForeignFirewalls, PacketFlow, judge, why_dropped
from overlayd.core.firewall.foreign_rules import Ruleset, RulesetError, read_iptables, read_nft
from overlayd.core.firewall.iptables import Variant

NETWORK = IPv4Network("10.244.0.0/16")
HERE, THERE = IPv4Network("10.244.1.0/24"), IPv4Network("10.244.2.0/24")
OUT = PacketFlow("what its pods send", HERE, THERE, leaves_by="ovl.1", network=NETWORK)
BACK = PacketFlow("what comes", THERE, HERE, comes_by="ovl.1", network=NETWORK)
NODE, PEER = IPv4Network("192.0.2.1"), IPv4Network("192.0.2.2")
IN = PacketFlow("the overlay's packets", PEER, NODE, comes_by="eth0", hook="input", port=8472)
FLOWS = (OUT, BACK, IN, replace(IN, source=NODE, destination=PEER, leaves_by="eth0", comes_by=None, hook="output"))


def saved(*rules: str, policy: str = "DROP", chain: str = "FORWARD", variant: Variant = Variant.LEGACY) -> Ruleset:
    """What iptables-save writes where one of the three chains has this policy, and the others accept."""
    policies = {
        "INPUT": "ACCEPT",
        "FORWARD": "ACCEPT",
        "OUTPUT": "ACCEPT",
        chain: policy,
        "MORE": "-",
        "LAST": "-",
    }
    lines = ["*filter", *(f":{name} {word} [0:0]" for name, word in policies.items()), *rules, "COMMIT"]
    return read_iptables(variant, "\n".join(lines))


def reason(ruleset: Ruleset, flow: PacketFlow) -> str | None:
    [base] = (base for base in ruleset.bases if base.hook == flow.hook)
    return why_dropped(ruleset, base, flow)


@pytest.mark.parametrize(
    ("policy", "rules", "said"),
    [
        ("ACCEPT", [], None),
        ("DROP", [], "by its policy"),
        ("DROP", ["-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"], "by its policy"),
        ("DROP", ["-m conntrack --ctstate ESTABLISHED,UNTRACKED -j ACCEPT"], None),  # another table may say so
        ("DROP", ['-s 10.244.0.0/16 -m comment --comment "a b" -j ACCEPT'], None),
        ("DROP", ["-s 10.244.1.128/25 -j ACCEPT"], None),  # some of the pods
        ("DROP", ["! -s 10.244.0.0/16 -j ACCEPT"], "by its policy"),
        ("DROP", ["! -o ovl.1 -j ACCEPT"], "by its policy"),
        ("DROP", ["-i cni0 -j ACCEPT"], None),  # how pods are connected isn't known
        ("DROP", ["-p tcp -m tcp --dport 80 -j ACCEPT"], None),
        ("DROP", ["-p icmp -m icmp --icmp-type 8 -j ACCEPT"], "by its policy"),
        ("DROP", ["! -p udp -j ACCEPT"], None),
        ("DROP", ["-m mark --mark 0x1 -j ACCEPT"], None),
        ("DROP", ["-j NFQUEUE --queue-num 0"], None),
        ("DROP", ['-m comment --comment "never closed -j ACCEPT'], None),
        ("ACCEPT", ["-p tcp -j DROP"], "by its rule 1 of chain FORWARD"),
        ("ACCEPT", ["-p tcp -m tcp --dport 22 -j DROP"], None),
        ("ACCEPT", ["-m mark --mark 0x1 -j REJECT --reject-with icmp-port-unreachable"], None),
        ("ACCEPT", ["-j MORE", "-A MORE -j RETURN", "-A MORE -j DROP"], None),
        ("ACCEPT", ["-j MORE", "-A MORE -j REJECT --reject-with x"], "by its rule 1 of chain MORE"),
        ("DROP", ["-j MORE", "-j ACCEPT", "-A MORE -m conntrack --ctstate INVALID -j DROP"], None),
        ("DROP", ["-g MORE", "-j ACCEPT", "-A MORE -o eth0 -j DROP"], "by its policy"),
        ("DROP", ["-j MORE", "-j ACCEPT", "-A MORE -g LAST", "-A LAST -j RETURN"], None),
        ("DROP", ["-j MORE", "-j ACCEPT", "-A MORE -m mark --mark 1 -j RETURN", "-A MORE -j DROP"], None),
        ("DROP", ["-j MORE", "-A MORE -j LAST", "-A LAST -j MORE"], None),  # a circle, which the kernel refuses
    ],
)
def test_chain_is_at_fault_only_if_every_way_through_it_ends_in_a_drop(
    policy: str, rules: list[str], said: str | None
) -> None:
    lines = [rule if rule.startswith("-A ") else f"-A FORWARD {rule}" for rule in rules]
    assert reason(saved(*lines, policy=policy), OUT) == said


@pytest.mark.parametrize(
    ("policy", "rule", "is_dropped"),
    [
        ("DROP", "-p udp -m udp --dport 8472 -j ACCEPT", False),
        ("DROP", "-p udp -m multiport --dports 53,8400:8500 -j ACCEPT", False),
        ("DROP", "-p udp -m udp ! --dport 53 -j ACCEPT", False),
        ("DROP", "-p tcp -m tcp --dport 8472 -j ACCEPT", True),
        ("DROP", "-s 192.0.2.0/24 -j ACCEPT", False),
        ("ACCEPT", "-p udp -m udp --dport 8472 -j DROP", True),
        ("ACCEPT", "-p udp -m udp --dport 8472 -m set --match-set x src -j DROP", False),
        ("ACCEPT", "-i eth1 -p udp -m udp --dport 8472 -j DROP", False),
        ("DROP", "-p udp -m udp --sport 8472 -j ACCEPT", False),  # the source port isn't known
    ],
)
def test_overlays_own_packets_are_judged_where_they_come_in(policy: str, rule: str, is_dropped: bool) -> None:
    ruleset = saved(f"-A INPUT {rule}", policy=policy, chain="INPUT")
    assert (reason(ruleset, IN) is not None) == is_dropped


def test_backend_that_may_be_answered_gets_in_as_established() -> None:
    ruleset = saved("-A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT", chain="INPUT")
    assert reason(ruleset, IN) == "by its policy"
    assert reason(ruleset, replace(IN, states=frozenset({"new", "established"}))) is None


# What nft alone has -------------------------------------------------------------------------------------------

Statements = list[Any]
ACCEPT, DROP = {"accept": None}, {"drop": None}
BY = {"meta": {"key": "oifname"}}
STATE = {"ct": {"key": "state"}}
OTHERS = {"prefix": {"addr": "192.0.2.0", "len": 24}}


def listed(*rules: Statements, **chain: Any) -> Ruleset:
    """The listing of a table with one base chain that drops by policy."""
    where = {"family": "inet", "table": "fw"}
    base = {**where, "name": "f", "type": "filter", "hook": "forward", "prio": 0, "policy": "drop", **chain}
    objects: list[Any] = [{"metainfo": {}}, {"chain": base}]
    objects += [{"rule": {**where, "chain": "f", "handle": 7 + n, "expr": r}} for n, r in enumerate(rules)]
    return read_nft(json.dumps({"nftables": objects}))


def match(left: dict[str, Any], right: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


def ip(field: str, protocol: str = "ip") -> dict[str, Any]:
    return {"payload": {"protocol": protocol, "field": field}}


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ([match({"ct": {"key": "status"}}, "dnat", "in"), ACCEPT], "by its policy"),
        ([match({"ct": {"key": "state", "dir": "reply"}}, "new"), ACCEPT], None),
        ([match(ip("saddr"), {"set": [OTHERS, "10.9.9.9"]}), ACCEPT], "by its policy"),
        ([match(ip("saddr"), {"range": ["10.244.0.0", "10.244.9.9"]}), ACCEPT], None),
        ([match(ip("saddr"), {"set": [{"elem": {"val": "10.9.9.9"}}]}), ACCEPT], "by its policy"),
        ([match(ip("saddr"), "@friends"), ACCEPT], None),  # nobody knows who is in there
        ([match(ip("saddr"), "@friends"), DROP], "by its policy"),
        ([match(BY, "ovl.1"), {"reject": None}], "by the rule with handle 7 of chain f"),
        ([match(ip("type", "icmp"), "echo-request"), ACCEPT], "by its policy"),
        ([match(ip("protocol"), "tcp"), ACCEPT], None),
        ([match({"meta": {"key": "nfproto"}}, "ipv6"), ACCEPT], "by its policy"),
        ([match(ip("saddr", "ip6"), "fd00::1"), ACCEPT], "by its policy"),
        ([match({"&": [{"meta": {"key": "mark"}}, 1]}, 1), ACCEPT], None),
        ([match(BY, "ovl.1", "<"), ACCEPT], None),
        ([{"xt": {"type": "match", "name": "comment"}}, {"xt": {"type": "target", "name": "REJECT"}}], "handle 7"),
        ([{"xt": {"type": "match", "name": "conntrack"}}, ACCEPT], None),
        ([{"limit": {"rate": 1}}, ACCEPT], None),
        ([{"something": "new"}], None),
        ([{"match": "new"}, ACCEPT], None),
        ([{"vmap": {"key": STATE, "data": {"set": [["established", ACCEPT], ["invalid", DROP]]}}}], "policy"),
        ([{"vmap": {"key": BY, "data": {"set": [["ovl.1", ACCEPT]]}}}], None),
        ([{"vmap": {"key": BY, "data": {"set": [["eth0", ACCEPT], ["ovl.1", DROP]]}}}], "handle 7"),
        ([{"vmap": {"key": BY, "data": "@map"}}], None),
        ([{"jump": {"target": "nowhere"}}], None),
    ],
)
def test_statements_of_nft_are_understood_or_not_told(rule: Statements, said: str | None) -> None:
    found = reason(listed(rule), OUT)
    assert (found is None) == (said is None), found
    assert said is None or said in str(found)


def test_own_table_and_other_families_hooks_and_types_are_no_concern() -> None:
    assert listed(family="inet", table="overlayd").bases == ()
    assert listed(family="ip6").bases == ()
    assert listed(hook="prerouting").bases == ()
    assert listed(type="nat").bases == ()


@pytest.mark.parametrize("text", ["", "[]", '{"nftables": [{"chain": {}}]}', '{"nftables": [{}]}', "null"])
def test_text_that_is_no_listing_is_refused(text: str) -> None:
    with pytest.raises(RulesetError):
        read_nft(text)


WORDS = [
    "match",
    "left",
    "op",
    "right",
    "payload",
    "protocol",
    "field",
    "set",
    "elem",
    "val",
    "vmap",
    "key",
    "data",
]
json_values = st.recursive(
    st.none() | st.integers() | st.sampled_from(["ip", "saddr", "10.0.0.0", "@s", "*", "=="]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=3),
    max_leaves=12,
)
odd_statements = (
    st.builds(match, json_values | st.sampled_from([BY, STATE, ip("saddr")]), json_values, st.just("=="))
    | st.builds(
        lambda key, data: {"vmap": {"key": key, "data": {"set": data}}}, json_values, st.lists(json_values)
    )
    | st.dictionaries(st.sampled_from(["match", "vmap", "jump", "xt"]), json_values, min_size=1, max_size=1)
)


@given(st.lists(odd_statements, max_size=3))
def test_no_rule_is_too_odd_to_be_judged(rule: Statements) -> None:
    judge(ForeignFirewalls(rulesets=(listed(rule),)), FLOWS, ours=False)


# What an operator reads ---------------------------------------------------------------------------------------


def problems(ruleset: Ruleset, *, variants: frozenset[Variant] = frozenset(), ours: bool = True) -> list[str]:
    return [str(problem) for problem in judge(ForeignFirewalls(variants, (ruleset,)), FLOWS, ours)]


def test_each_chain_that_drops_is_named_once_with_the_command_that_opens_it() -> None:
    opened = "nft insert rule inet fw f ip saddr 10.244.0.0/16 ip daddr 10.244.0.0/16 accept"
    assert problems(listed()) == [
        f"the nftables chain inet fw f drops what its pods send, by its policy. Open it: {opened}"
    ]
    assert (
        problems(listed([match(BY, "ovl.1"), ACCEPT]))
        == [f"the nftables chain inet fw f drops what comes, by its policy. Open it: {opened}"][
            : 0 if reason(listed([match(BY, "ovl.1"), ACCEPT]), BACK) is None else 1
        ]
    )
    assert problems(listed([ACCEPT])) == []
    assert problems(listed(hook="input")) == [
        "the nftables chain inet fw f drops the overlay's packets, by its policy. "
        "Open it: nft insert rule inet fw f udp dport 8472 accept"
    ]
    [text] = problems(listed(name="a;reboot \x1b[2J"))
    assert "insert rule inet fw 'a;reboot \\x1b[2J' ip saddr" in text


@pytest.mark.parametrize(
    ("hook", "command"),
    [
        ("forward", "firewall-cmd --permanent --zone=trusted --add-source=10.244.0.0/16 && firewall-cmd --reload"),
        ("input", "firewall-cmd --permanent --add-port=8472/udp && firewall-cmd --reload"),
        ("output", "nft insert rule inet firewalld f udp dport 8472 accept"),
    ],
)
def test_firewalld_is_opened_by_its_own_command(hook: str, command: str) -> None:
    [text] = problems(listed(table="firewalld", hook=hook))
    assert text.endswith(f"Open it: {command}")


@pytest.mark.parametrize(
    ("chain", "ufw", "command"),
    [
        ("FORWARD", False, "iptables-nft -I FORWARD -s 10.244.0.0/16 -d 10.244.0.0/16 -j ACCEPT"),
        ("INPUT", False, "iptables-nft -I INPUT -p udp --dport 8472 -j ACCEPT"),
        ("FORWARD", True, "ufw route allow from 10.244.0.0/16 to 10.244.0.0/16"),
        ("INPUT", True, "ufw allow 8472/udp"),
        ("OUTPUT", True, "ufw allow out 8472/udp"),
    ],
)
def test_iptables_is_opened_by_the_command_of_its_owner(chain: str, ufw: bool, command: str) -> None:
    rules = [":ufw-before-input - [0:0]"] if ufw else []
    [text] = problems(saved(*rules, chain=chain, variant=Variant.NFT))
    assert text.endswith(f"Open it: {command}")


def test_iptables_that_has_our_rules_needs_no_judge_at_forward_alone() -> None:
    in_use = frozenset({Variant.LEGACY})
    assert problems(saved(), variants=in_use) == []
    assert len(problems(saved(), variants=in_use, ours=False)) == 1
    assert len(problems(saved(chain="INPUT"), variants=in_use)) == 1


# Whatever is not known may turn out either way: a verdict must hold for all of them -----------------------------

TRUE, FALSE = ("-p tcp", "-o ovl+", "! -d 192.0.2.0/24"), ("-p udp", "-o eth0", "-d 192.0.2.0/24")
UNKNOWN = "-m mark --mark 1"
TARGETS = ("-j ACCEPT", "-j DROP", "-j RETURN", "-j LOG", "-j MORE", "-g MORE", "-j LAST", "-g LAST", "-j OTHER")
rules_of = st.lists(
    st.tuples(st.lists(st.sampled_from([*TRUE, *FALSE, UNKNOWN]), max_size=2), st.sampled_from(TARGETS)),
    max_size=4,
)
Chains = dict[str, list[tuple[list[str], str]]]


@given(
    st.fixed_dictionaries({"FORWARD": rules_of, "MORE": rules_of, "LAST": rules_of}),
    st.sampled_from(["ACCEPT", "DROP"]),
    st.data(),
)
def test_certain_drop_is_a_drop_however_the_unknown_turns_out(
    chains: Chains, policy: str, chance: st.DataObject
) -> None:
    lines = [f"-A {name} {' '.join(on)} {target}" for name, rules in chains.items() for on, target in rules]
    if reason(saved(*lines, policy=policy), OUT) is not None:
        assert packet_ends(chains, "FORWARD", policy, chance, 0) == "DROP"


def packet_ends(chains: Chains, chain: str, at_end: str, chance: st.DataObject, depth: int) -> str:
    """A packet's way as the kernel goes it; each unknown is drawn as it is met."""
    if depth > 10:
        return "DROP"  # a circle, which the kernel does not allow
    for on, target in chains[chain]:
        if not all(test in TRUE or (test == UNKNOWN and chance.draw(st.booleans())) for test in on):
            continue
        option, _, name = target.partition(" ")
        if name == "OTHER":
            name = chance.draw(st.sampled_from(["ACCEPT", "DROP", "LOG"]))
        if name in ("ACCEPT", "DROP"):
            return name
        if name == "RETURN":
            return at_end
        if name in chains:
            end = packet_ends(chains, name, "RETURN" if option == "-j" else at_end, chance, depth + 1)
            if end != "RETURN" or option == "-g":
                return end
    return at_end
