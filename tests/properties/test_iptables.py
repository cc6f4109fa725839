"""Whatever somebody has in iptables: ours is told from what is not, and only ours is ever written about."""

from __future__ import annotations

from ipaddress import IPv4Network

from hypothesis import given
from hypothesis import strategies as st

from overlayd.core.firewall.foreign_rules import read_iptables
from overlayd.core.firewall.iptables import ForwardRules, Variant, accept_rule, forward_rules
from overlayd.host.iptables.listing import parse_listing, write_script

variants = st.sampled_from(Variant)
networks = st.sampled_from([IPv4Network("10.244.0.0/16"), IPv4Network("10.9.0.0/24"), IPv4Network("192.0.2.1")])
ours = st.builds(accept_rule, st.sampled_from(["-s", "-d"]), networks)
theirs = st.sampled_from(
    [
        "-j DOCKER-USER",
        "-s 10.244.0.0/16 -j ACCEPT",
        '-s 10.244.0.0/16 -m comment --comment "overlayd too" -j ACCEPT',
        "-s 10.244.0.0/16 -m comment --comment overlayd2 -j ACCEPT",
        "-s 10.244.0.0/16 -m comment --comment overlayd -j DROP",
        "! -s 10.244.0.0/16 -m comment --comment overlayd -j ACCEPT",
        "-s 10.244.0.0/16 -i eth0 -m comment --comment overlayd -j ACCEPT",
        '-m comment --comment "x\\" -m comment --comment overlayd -j ACCEPT"',
    ]
)


def text(policy: str, forward: list[str], elsewhere: list[str]) -> str:
    lines = [*(f"-A FORWARD {rule}" for rule in forward), *(f"-A INPUT {rule}" for rule in elsewhere)]
    return "\n".join(["# a remark", "*filter", f":FORWARD {policy} [1:2]", ":OTHER - [0:0]", *lines, "COMMIT", ""])


@given(
    variants,
    st.sampled_from(["ACCEPT", "DROP"]),
    st.lists(ours | theirs, max_size=6),
    st.lists(theirs, max_size=1),
)
def test_ours_are_told_from_all_others(
    variant: Variant, policy: str, forward: list[str], elsewhere: list[str]
) -> None:
    listing = parse_listing(variant, text(policy, forward, elsewhere))
    mine = tuple(
        rule for rule in forward if rule.endswith("--comment overlayd -j ACCEPT") and rule.count(" ") == 7
    )
    found = listing.ours.rules if listing.ours is not None else ()
    assert found == mine
    others = [rule for rule in forward if rule not in mine]
    assert listing.in_use == (policy == "DROP" or bool(others) or bool(elsewhere))
    if listing.ours is not None:
        assert (listing.ours.odd == "") == (tuple(forward[: len(mine)]) == mine)


@given(variants, st.lists(ours | theirs, max_size=6), networks)
def test_a_change_takes_away_ours_alone_and_puts_the_wanted_first(
    variant: Variant, forward: list[str], network: IPv4Network
) -> None:
    """The script, carried out as iptables-restore does it."""
    there, wanted = parse_listing(variant, text("ACCEPT", forward, [])).ours, forward_rules(variant, network)
    chain = list(forward)
    for line in write_script(there, wanted).splitlines():
        match line.split(" ", 3):
            case ["-D", "FORWARD", *_]:
                chain.remove(line.removeprefix("-D FORWARD "))
            case ["-I", "FORWARD", place, rule]:
                chain.insert(int(place) - 1, rule)
    mine = there.rules if there is not None else ()
    assert chain == [*wanted.rules, *(rule for rule in forward if rule not in mine)]
    assert parse_listing(variant, text("ACCEPT", chain, [])).ours == wanted


lines = st.lists(
    st.sampled_from(["-A", "FORWARD", "-s", "-j", "ACCEPT", "overlayd", ":FORWARD", "DROP", "*filter", '"', "!"])
    | st.text(max_size=5),
    max_size=8,
).map(" ".join)


@given(st.lists(lines, max_size=8).map("\n".join))
def test_no_text_is_too_odd_to_be_read(listing: str) -> None:
    found = parse_listing(Variant.NFT, listing).ours
    assert found is None or all("\n" not in rule for rule in found.rules)
    read_iptables(Variant.NFT, listing)
    assert write_script(found, None).splitlines()[0] == "*filter"


def test_they_read_as_what_iptables_shows() -> None:
    rules = forward_rules(Variant.LEGACY, IPv4Network("10.244.0.0/16"))
    assert str(rules) == (
        "iptables-legacy FORWARD -s 10.244.0.0/16 -m comment --comment overlayd -j ACCEPT; "
        "-d 10.244.0.0/16 -m comment --comment overlayd -j ACCEPT"
    )
    odd = ForwardRules(Variant.NFT, rules.rules, "behind a rule of somebody else")
    assert str(odd).endswith(" (behind a rule of somebody else)")
