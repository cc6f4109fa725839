"""Choosing a subnet, against brute force over networks small enough to list."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from itertools import combinations
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from overlayd.core.leases.subnets import choose_subnet, find_config_mismatch, subnet_at
from overlayd.core.network.addresses import IPNetwork, Subnet
from overlayd.core.network.config import NetworkConfig, Range, parse_config
from support.strategies import nth_prefix, subnets

SMALL = IPv4Network("10.244.8.0/24")
SMALL6 = IPv6Network("fd00:10:244:8::/120")

chances = st.floats(0, 1, exclude_max=True)


def span(network: IPNetwork, length: int, first: int, last: int) -> Range:
    """The range of the `first`-th to the `last`-th prefix of this length."""
    return Range(
        network,
        length,
        nth_prefix(network, length, first).network_address,
        nth_prefix(network, length, last).network_address,
    )


@st.composite
def configs(draw: st.DrawFn) -> NetworkConfig:
    spans = []
    networks: list[tuple[IPNetwork, ...]] = [(SMALL,), (SMALL6,), (SMALL, SMALL6)]
    for network in draw(st.sampled_from(networks)):
        length = draw(st.integers(2, 4))
        ends = st.integers(0, (1 << length) - 1)
        first, last = sorted([draw(ends), draw(ends)])
        spans.append(span(network, network.prefixlen + length, first, last))
    return NetworkConfig(tuple(spans))


taken_lists = st.lists(subnets(SMALL, SMALL6), max_size=6)


def cut(each: Range) -> list[IPNetwork]:
    """The whole network in subnets, those outside the range among them."""
    return list(each.network.subnets(new_prefix=each.subnet_len))


def listed(each: Range) -> list[IPNetwork]:
    return [prefix for prefix in cut(each) if is_within(each, prefix)]


def is_within(each: Range, prefix: IPNetwork) -> bool:
    return int(each.first) <= int(prefix.network_address) <= int(each.last)


def all_subnets(config: NetworkConfig) -> list[Subnet]:
    """Every subnet that the config offers: the n-th of one family with the n-th of the other."""
    return [Subnet(tuple(row)) for row in zip(*map(listed, config.ranges), strict=False)]


def free_subnets(config: NetworkConfig, taken: list[Subnet]) -> list[Subnet]:
    return [subnet for subnet in all_subnets(config) if not any(subnet.overlaps(other) for other in taken)]


@given(configs(), taken_lists, chances)
def test_one_is_found_exactly_if_one_is_free(config: NetworkConfig, taken: list[Subnet], chance: float) -> None:
    free = free_subnets(config, taken)
    chosen = choose_subnet(config, taken, None, chance)
    assert chosen in free if free else chosen is None


@given(configs(), taken_lists)
def test_every_free_one_has_the_same_chance(config: NetworkConfig, taken: list[Subnet]) -> None:
    free = free_subnets(config, taken)
    chosen = [choose_subnet(config, taken, None, (number + 0.5) / len(free)) for number in range(len(free))]
    assert chosen == free


@given(configs(), taken_lists, chances, st.data())
def test_the_preferred_one_is_chosen_exactly_if_it_is_free(
    config: NetworkConfig, taken: list[Subnet], chance: float, data: st.DataObject
) -> None:
    mixed = st.tuples(*(st.sampled_from(cut(each)) for each in config.ranges)).map(Subnet)
    prefer = data.draw(mixed | st.sampled_from(all_subnets(config)) | subnets(SMALL, SMALL6))
    chosen = choose_subnet(config, taken, prefer, chance)
    if prefer in free_subnets(config, taken):
        assert chosen == prefer
    else:
        assert chosen == choose_subnet(config, taken, None, chance)


@given(configs())
def test_numbers_name_disjoint_subnets_that_fit(config: NetworkConfig) -> None:
    numbered = [subnet_at(config, number) for number in range(config.capacity)]
    assert numbered == all_subnets(config)
    assert all(find_config_mismatch(config, subnet) is None for subnet in numbered)
    assert not any(one.overlaps(other) for one, other in combinations(numbered, 2))


@given(configs(), subnets())
def test_a_subnet_of_elsewhere_does_not_fit(config: NetworkConfig, subnet: Subnet) -> None:
    fits = len(subnet.prefixes) == len(config.ranges) and all(
        prefix in each.network.subnets(new_prefix=each.subnet_len) and is_within(each, prefix)
        for each, prefix in zip(config.ranges, subnet.prefixes, strict=True)
    )
    assert (find_config_mismatch(config, subnet) is None) == fits


def test_a_misfit_says_why() -> None:
    config = parse_config('{"Network": "10.244.0.0/16"}')
    for text, reason in {
        "10.244.3.0/25": "is not a /24",
        "10.244.0.0/24": "is outside 10.244.1.0 to 10.244.255.0/24",
        "10.245.0.0/24": "is outside 10.244.1.0 to 10.244.255.0/24",
        "fd00::/64": "has no part in 10.244.0.0/16",
        "10.244.3.0/24,fd00::/64": "has a part of a family that is off",
    }.items():
        assert find_config_mismatch(config, Subnet.parse(text)) == reason


def test_fifty_daemons_get_the_fifty_subnets_of_a_network() -> None:
    config = NetworkConfig((span(IPv4Network("10.0.0.0/8"), 24, 100, 149),))
    chance = Random(50)
    taken: list[Subnet] = []
    for _ in range(50):
        chosen = choose_subnet(config, taken, None, chance.random())
        assert chosen is not None
        taken.append(chosen)
    assert len({subnet.prefixes for subnet in taken}) == 50
    assert choose_subnet(config, taken, None, chance.random()) is None


def test_a_huge_network_with_many_leases_is_no_trouble() -> None:
    """Neither 2^62 subnets nor 10,000 leases are gone through one by one: this would not end."""
    config = NetworkConfig(
        (
            Range(IPv4Network("10.0.0.0/8"), 30, IPv4Address("10.0.0.4"), IPv4Address("10.255.255.252")),
            Range(IPv6Network("fd00::/64"), 126, IPv6Address("fd00::4"), IPv6Address("fd00::ffff:ffff:ffff:fffc")),
        )
    )
    chance = Random(1)
    taken = [subnet_at(config, chance.randrange(config.capacity)) for _ in range(10_000)]
    for _ in range(3):
        chosen = choose_subnet(config, taken, taken[0], chance.random())
        assert chosen is not None
        assert not any(chosen.overlaps(other) for other in taken)


def test_the_last_chance_is_within_the_range() -> None:
    config = NetworkConfig(
        (Range(IPv6Network("fd00::/8"), 126, IPv6Address("fd00::4"), IPv6Address("fd00::ffff:ffff:ffff:fffc")),)
    )
    chosen = choose_subnet(config, [], None, 1 - 2**-53)
    assert chosen is not None
    assert find_config_mismatch(config, chosen) is None
