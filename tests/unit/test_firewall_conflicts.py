"""What the judge of other people's firewalls makes of rules: a drop is named only where there is no other way."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlayd.core.firewall.conflicts import (
    BaseChain,
    ChainVerdict,
    ForeignFirewalls,
    ForeignRule,
    PacketFlow,
    RuleMatch,
    Ruleset,
    Span,
    Subject,
    judge,
    why_dropped,
)
from overlayd.core.firewall.iptables import Variant
from overlayd.host.iptables.ruleset import parse_ruleset as parse_iptables
from overlayd.host.nft.ruleset import RulesetError, parse_ruleset

NETWORK = IPv4Network("10.244.0.0/16")
OUT = PacketFlow(
    "what its pods send", IPv4Network("10.244.1.0/24"), IPv4Network("10.244.2.0/24"), leaves_by="ovl.1"
)
BACK = PacketFlow("what comes", OUT.destination, OUT.source, comes_by="ovl.1")
PLACE = ("inet", "fw", "forward")


Rules = list[list[dict[str, Any]]]


def nft(*rules: list[dict[str, Any]], policy: str = "drop", others: dict[str, Rules] | None = None) -> Ruleset:
    """The listing of a table with one base chain and these others."""
    chains = others or {}
    where = {"family": "inet", "table": "fw"}
    base = {**where, "name": "forward", "handle": 1, "type": "filter", "hook": "forward", "prio": 0}
    objects: list[dict[str, Any]] = [{"metainfo": {}}, {"table": {"family": "inet", "name": "fw", "handle": 1}}]
    objects += [{"chain": {**base, "policy": policy}}]
    objects += [{"chain": {**where, "name": name, "handle": 2}} for name in chains]
    for name, inside in {"forward": list(rules), **chains}.items():
        objects += [{"rule": {**where, "chain": name, "handle": 7 + n, "expr": r}} for n, r in enumerate(inside)]
    return parse_ruleset(json.dumps({"nftables": objects}))


def match(left: dict[str, Any], right: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


def prefix(text: str) -> dict[str, Any]:
    address, _, length = text.partition("/")
    return {"prefix": {"addr": address, "len": int(length)}}


SOURCE = {"payload": {"protocol": "ip", "field": "saddr"}}
STATE = {"ct": {"key": "state"}}
BY = {"meta": {"key": "oifname"}}
MARK = {"meta": {"key": "mark"}}
ACCEPT, DROP = {"accept": None}, {"drop": None}
REJECT = {"reject": {"type": "icmpx", "expr": "admin-prohibited"}}


def verdict(ruleset: Ruleset, flow: PacketFlow = OUT) -> str | None:
    [base] = ruleset.bases
    return why_dropped(ruleset, base, flow)


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        ([], "by its policy"),
        ([[match(STATE, ["established", "related"], "in"), ACCEPT]], "by its policy"),
        ([[match(STATE, "new", "in"), {"counter": None}, ACCEPT]], None),
        ([[match({"ct": {"key": "status"}}, "dnat", "in"), ACCEPT]], "by its policy"),
        ([[match(SOURCE, prefix("10.244.0.0/16")), ACCEPT]], None),
        ([[match(SOURCE, prefix("10.244.1.128/25")), ACCEPT]], None),  # some of the pods
        ([[match(SOURCE, prefix("10.244.0.0/16"), "!="), ACCEPT]], "by its policy"),
        ([[match(SOURCE, {"set": [prefix("192.0.2.0/24"), "10.9.9.9"]}), ACCEPT]], "by its policy"),
        ([[match(SOURCE, {"range": ["10.244.0.0", "10.244.9.9"]}), ACCEPT]], None),
        ([[match(SOURCE, "@friends"), ACCEPT]], None),  # who knows who is in there
        ([[match(SOURCE, "@friends"), DROP]], "by its policy"),
        ([[match(BY, "eth0"), ACCEPT]], "by its policy"),
        ([[match(BY, "ovl*"), ACCEPT]], None),
        ([[match(BY, "ovl.1"), REJECT], [ACCEPT]], "by the rule with handle 7 of chain forward"),
        ([[match({"meta": {"key": "iifname"}}, "cni0"), ACCEPT]], None),  # how pods are connected isn't known
        ([[match(MARK, 1), ACCEPT]], None),
        ([[match({"payload": {"protocol": "tcp", "field": "dport"}}, 22), DROP], [ACCEPT]], None),
        ([[match({"payload": {"protocol": "icmp", "field": "type"}}, "echo-request"), ACCEPT]], "by its policy"),
        ([[match({"meta": {"key": "l4proto"}}, {"set": ["icmp", "ipv6-icmp"]}), ACCEPT]], "by its policy"),
        ([[match({"payload": {"protocol": "ip", "field": "protocol"}}, "tcp"), ACCEPT]], None),
        ([[match({"meta": {"key": "nfproto"}}, "ipv6"), DROP], [ACCEPT]], None),
        ([[match({"payload": {"protocol": "ip6", "field": "saddr"}}, "fd00::1"), DROP], [ACCEPT]], None),
        ([[{"xt": {"type": "match", "name": "comment"}}, ACCEPT]], None),
        (
            [[{"xt": {"type": "match", "name": "comment"}}, {"xt": {"type": "target", "name": "REJECT"}}]],
            "handle 7",
        ),
        ([[{"xt": {"type": "match", "name": "conntrack"}}, ACCEPT]], None),
        ([[{"queue": {"num": 1}}]], None),
        ([[{"something": "new"}]], None),
        ([[{"limit": {"rate": 1}}, ACCEPT]], None),
        (
            [[{"vmap": {"key": STATE, "data": {"set": [["established", ACCEPT], ["invalid", DROP]]}}}]],
            "by its policy",
        ),
        ([[{"vmap": {"key": BY, "data": {"set": [["ovl.1", ACCEPT]]}}}]], None),
        ([[{"vmap": {"key": BY, "data": "@map"}}]], None),
        ([[{"jump": {"target": "nowhere"}}]], None),
    ],
)
def test_what_a_chain_that_drops_by_policy_does(rules: Rules, reason: str | None) -> None:
    found = verdict(nft(*rules))
    assert (found is None) == (reason is None), found
    assert reason is None or reason in str(found)


def test_a_chain_that_accepts_by_policy_drops_only_by_a_rule() -> None:
    assert verdict(nft(policy="accept")) is None
    assert verdict(nft([REJECT], policy="accept")) == "by the rule with handle 7 of chain forward"
    assert verdict(nft([match(MARK, 1), REJECT], policy="accept")) is None


def test_jumps_come_back_and_gotos_do_not() -> None:
    back = {"inner": [[match(STATE, "invalid", "in"), DROP]]}
    assert verdict(nft([{"jump": {"target": "inner"}}], [ACCEPT], others=back)) is None
    assert verdict(nft([{"goto": {"target": "inner"}}], [ACCEPT], others=back)) == "by its policy"
    deep: dict[str, Rules] = {"inner": [[{"goto": {"target": "last"}}]], "last": [[{"return": None}], [DROP]]}
    assert verdict(nft([{"jump": {"target": "inner"}}], [ACCEPT], others=deep)) is None
    shut: dict[str, Rules] = {"zones": [[{"jump": {"target": "public"}}], [ACCEPT]], "public": [[REJECT]]}
    assert verdict(nft([{"jump": {"target": "zones"}}], policy="accept", others=shut)) == (
        "by the rule with handle 7 of chain public"
    )
    maybe = {"zones": [[match(MARK, 1), {"return": None}], [DROP]]}
    assert verdict(nft([{"jump": {"target": "zones"}}], [ACCEPT], others=maybe)) is None


def test_a_circle_ends() -> None:
    around = {"a": [[{"jump": {"target": "b"}}]], "b": [[{"jump": {"target": "a"}}]]}
    assert verdict(nft([{"jump": {"target": "a"}}], others=around)) is None


def test_our_own_table_and_other_families_and_hooks_are_no_concern() -> None:
    chain = {"name": "c", "handle": 1, "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}
    listing = [
        {"chain": {**chain, "family": "inet", "table": "overlayd"}},
        {"chain": {**chain, "family": "ip6", "table": "fw"}},
        {"chain": {**chain, "family": "inet", "table": "fw", "hook": "input"}},
    ]
    assert parse_ruleset(json.dumps({"nftables": listing})).bases == ()


@pytest.mark.parametrize("text", ["", "[]", '{"nftables": [{"chain": {}}]}', '{"nftables": [{}]}', "null"])
def test_what_is_no_listing_is_refused(text: str) -> None:
    with pytest.raises(RulesetError):
        parse_ruleset(text)


IPTABLES = """
*filter
:INPUT ACCEPT [0:0]
:FORWARD {policy} [1:60]
:OUTPUT ACCEPT [0:0]
:DOCKER-USER - [0:0]
{rules}
COMMIT
"""


@pytest.mark.parametrize(
    ("policy", "rules", "reason"),
    [
        ("ACCEPT", "", None),
        ("DROP", "", "by its policy"),
        ("DROP", "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "by its policy"),
        ("DROP", '-A FORWARD -s 10.244.0.0/16 -m comment --comment "a b" -j ACCEPT', None),
        ("DROP", "-A FORWARD ! -s 10.244.0.0/16 -j ACCEPT", "by its policy"),
        ("DROP", "-A FORWARD -o ovl+ -j ACCEPT", None),
        ("DROP", "-A FORWARD ! -o ovl.1 -j ACCEPT", "by its policy"),
        ("DROP", "-A FORWARD -p tcp -m tcp --dport 80 -j ACCEPT", None),
        ("ACCEPT", "-A FORWARD -p tcp -j DROP", "its rule 1 of chain FORWARD"),
        ("DROP", "-A FORWARD -p icmp -m icmp --icmp-type 8 -j ACCEPT", "by its policy"),
        ("DROP", "-A FORWARD ! -p udp -j ACCEPT", None),
        ("DROP", "-A FORWARD -j MARK --set-xmark 0x1/0x1", "by its policy"),
        ("DROP", "-A FORWARD -j SOMETHING", None),
        ("ACCEPT", "-A FORWARD -j DOCKER-USER\n-A DOCKER-USER -j RETURN\n-A DOCKER-USER -j DROP", None),
        (
            "ACCEPT",
            "-A FORWARD -j DOCKER-USER\n-A DOCKER-USER -j REJECT --reject-with x",
            "its rule 1 of chain DOCKER",
        ),
        ("DROP", '-A FORWARD -m comment --comment "never closed -j ACCEPT', None),
        ("DROP", "-A FORWARD -s 10.244.0.0/255.255.0.0 -j ACCEPT", None),
    ],
)
def test_iptables_is_understood_likewise(policy: str, rules: str, reason: str | None) -> None:
    ruleset = parse_iptables(Variant.LEGACY, IPTABLES.format(policy=policy, rules=rules))
    found = verdict(ruleset)
    assert (found is None) == (reason is None), found
    assert reason is None or reason in str(found)
    assert parse_iptables(Variant.LEGACY, "").bases == ()


def problems(ruleset: Ruleset, *, variants: frozenset[Variant] = frozenset(), ours: bool = True) -> list[str]:
    others = ForeignFirewalls(variants, (ruleset,))
    return [str(problem) for problem in judge(others, (OUT, BACK), NETWORK, ours)]


def test_each_chain_that_drops_is_named_once_with_the_command_that_opens_it() -> None:
    assert problems(nft()) == [
        "the nftables chain inet fw forward drops what its pods send, by its policy. "
        "Open it: nft insert rule inet fw forward ip saddr 10.244.0.0/16 ip daddr 10.244.0.0/16 accept"
    ]
    assert problems(nft([match(SOURCE, prefix("10.244.1.0/24")), ACCEPT])) == [
        "the nftables chain inet fw forward drops what comes, by its policy. "
        "Open it: nft insert rule inet fw forward ip saddr 10.244.0.0/16 ip daddr 10.244.0.0/16 accept"
    ]
    assert problems(nft([ACCEPT])) == []
    place = ("inet", "firewalld", "filter_FORWARD")
    [text] = problems(Ruleset((BaseChain(place, drops=True),), {place: ()}))
    assert text.endswith(
        "firewall-cmd --permanent --zone=trusted --add-source=10.244.0.0/16 && firewall-cmd --reload"
    )


def test_an_iptables_that_has_our_rules_needs_no_judge() -> None:
    ruleset = parse_iptables(Variant.LEGACY, IPTABLES.format(policy="DROP", rules=""))
    assert problems(ruleset, variants=frozenset({Variant.LEGACY})) == []
    [text] = problems(ruleset, variants=frozenset({Variant.LEGACY}), ours=False)
    assert text.endswith("Open it: iptables-legacy -I FORWARD -s 10.244.0.0/16 -d 10.244.0.0/16 -j ACCEPT")


# Whatever is not known may turn out either way: a verdict must hold for all of them.

subjects = st.sampled_from([Subject.SOURCE, Subject.COMES_BY, Subject.LEAVES_BY, Subject.STATE, Subject.UNKNOWN])
spans: st.SearchStrategy[Span | str] = st.sampled_from(
    ["10.244.0.0/16", "10.244.1.0/24", "10.244.1.64/26", "192.0.2.0/24"]
).map(lambda text: (int(IPv4Network(text)[0]), int(IPv4Network(text)[-1])))

words: st.SearchStrategy[Span | str] = st.sampled_from(["ovl.1", "eth0", "ovl*", "new", "established"])


@st.composite
def conditions(draw: st.DrawFn) -> RuleMatch:
    subject = draw(subjects)
    values = spans if subject is Subject.SOURCE else words
    return RuleMatch(subject, (draw(values),), draw(st.booleans()))


rules = st.builds(
    ForeignRule,
    st.lists(conditions(), max_size=2).map(tuple),
    st.sampled_from(ChainVerdict),
    st.sampled_from(["a", "b", "c"]),
    st.just("a rule"),
)
rulesets = st.fixed_dictionaries(
    {("ip", "t", name): st.lists(rules, max_size=4).map(tuple) for name in ("forward", "a", "b", "c")}
)


def resolved(
    ruleset: dict[Any, tuple[ForeignRule, ...]], chance: st.DataObject
) -> dict[Any, tuple[ForeignRule, ...]]:
    """What is unknown has become known, one way or the other."""

    def one(rule: ForeignRule) -> ForeignRule:
        known = [
            RuleMatch(Subject.FAMILY, ("ipv4",) if chance.draw(st.booleans()) else ("ipv6",))
            if condition.holds(OUT) is None
            else condition
            for condition in rule.conditions
        ]
        verdict = rule.verdict
        if verdict is ChainVerdict.UNKNOWN:
            verdict = chance.draw(st.sampled_from([ChainVerdict.ACCEPT, ChainVerdict.DROP, ChainVerdict.NONE]))
        return replace(rule, conditions=tuple(known), verdict=verdict)

    return {key: tuple(map(one, chain)) for key, chain in ruleset.items()}


@given(rulesets, st.booleans(), st.data())
def test_what_is_dropped_for_certain_is_dropped_however_the_unknown_turns_out(
    chains: dict[Any, tuple[ForeignRule, ...]], drops: bool, chance: st.DataObject
) -> None:
    base = BaseChain(("ip", "t", "forward"), drops)
    if why_dropped(Ruleset((base,), chains), base, OUT) is None:
        return
    assert walk(resolved(chains, chance), ("ip", "t", "forward"), 0) in ("drop", "return" if drops else "drop")


def walk(chains: dict[Any, tuple[ForeignRule, ...]], chain: Any, depth: int) -> str:
    """A packet's way where everything is known, as the kernel goes it."""
    if depth > 20:
        return "circle"
    for rule in chains[chain]:
        if not all(condition.holds(OUT) for condition in rule.conditions):
            continue
        match rule.verdict:
            case ChainVerdict.ACCEPT | ChainVerdict.DROP | ChainVerdict.RETURN:
                return str(rule.verdict.value)
            case ChainVerdict.JUMP | ChainVerdict.GOTO:
                end = walk(chains, (*chain[:2], rule.target), depth + 1)
                if end != "return" or rule.verdict is ChainVerdict.GOTO:
                    return end
    return "return"
