"""The network config: against a slow model that lists every subnet, and against garbage."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from overlayd.core.network.addresses import Family, IPNetwork
from overlayd.core.network.config import TOLD, ConfigError, NetworkConfig, parse_config
from support.strategies import json_values


@dataclass(frozen=True)
class Column:
    """One family's column in the table of the config's rules."""

    prefix: str
    networks: tuple[str, ...]
    longest_len: int
    smallest_network: int
    usual_len: int
    usual_up_to: int


IPV4 = Column("", ("10.244.0.0/", "192.168.77.8/"), 30, 28, 24, 22)
IPV6 = Column("IPv6", ("fd00:10:244::/", "fd00::1:0/"), 126, 124, 64, 62)


def offered(members: Mapping[str, object], column: Column) -> list[IPNetwork] | None:
    """The subnets that these members offer, one by one; None where the table calls them an error."""
    network = ip_network(str(members[f"{column.prefix}Network"]), strict=False)
    length = members.get(f"{column.prefix}SubnetLen")
    if length is None:
        if network.prefixlen > column.smallest_network:
            return None
        length = column.usual_len if network.prefixlen <= column.usual_up_to else network.prefixlen + 2
    assert isinstance(length, int)
    if not network.prefixlen + 2 <= length <= column.longest_len:
        return None
    subnets: list[IPNetwork] = list(network.subnets(new_prefix=length))
    firsts = [str(subnet.network_address) for subnet in subnets]
    low = members.get(f"{column.prefix}SubnetMin", firsts[1])
    high = members.get(f"{column.prefix}SubnetMax", firsts[-1])
    if low not in firsts or high not in firsts:
        return None
    return subnets[firsts.index(low) : firsts.index(high) + 1] or None


@st.composite
def columns(draw: st.DrawFn, column: Column, bits: int) -> dict[str, object]:
    """Members of one family, of the right type; right and wrong values are both likely."""
    size = draw(st.integers(2, 12) if draw(st.booleans()) else st.integers(0, 9))
    shortest = bits - size if draw(st.booleans()) else column.usual_len - draw(st.integers(0, 6))
    members: dict[str, object] = {f"{column.prefix}Network": f"{draw(st.sampled_from(column.networks))}{shortest}"}
    network = ip_network(str(members[f"{column.prefix}Network"]), strict=False)
    length = shortest + draw(st.integers(0, 8))
    if draw(st.booleans()) and length <= bits + 2:
        members[f"{column.prefix}SubnetLen"] = length
    step = 1 << max(0, bits - length)
    for bound in ("SubnetMin", "SubnetMax"):
        if draw(st.integers(0, 2)):
            continue
        value = (
            int(network.network_address) + draw(st.integers(-2, 12)) * step + draw(st.sampled_from([0, 0, 0, 1]))
        )
        members[f"{column.prefix}{bound}"] = str(IPv4Address(value) if bits == 32 else IPv6Address(value))
    return members


def listed(config: NetworkConfig, family: Family) -> list[IPNetwork]:
    span = config.range_of(family)
    assert span is not None
    kind = IPv4Network if family is Family.IPV4 else IPv6Network
    return [kind((int(span.first) + number * span.step, span.subnet_len)) for number in range(span.capacity)]


@given(columns(IPV4, 32))
def test_ipv4_ranges_are_those_of_the_table(members: dict[str, object]) -> None:
    expected = offered(members, IPV4)
    try:
        config = parse_config(json.dumps(members))
    except ConfigError:
        assert expected is None
    else:
        assert listed(config, Family.IPV4) == expected
        assert config.capacity == len(listed(config, Family.IPV4))


@given(columns(IPV6, 128))
def test_ipv6_ranges_are_those_of_the_table(members: dict[str, object]) -> None:
    expected = offered(members, IPV6)
    try:
        config = parse_config(json.dumps(members | {"EnableIPv4": False, "EnableIPv6": True}))
    except ConfigError:
        assert expected is None
    else:
        assert listed(config, Family.IPV6) == expected
        assert config.range_of(Family.IPV4) is None


@given(columns(IPV4, 32), columns(IPV6, 128))
def test_two_families_are_right_if_each_is(ipv4: dict[str, object], ipv6: dict[str, object]) -> None:
    one, other = offered(ipv4, IPV4), offered(ipv6, IPV6)
    try:
        config = parse_config(json.dumps(ipv4 | ipv6 | {"EnableIPv6": True}))
    except ConfigError:
        assert one is None or other is None
    else:
        assert one is not None
        assert other is not None
        assert config.capacity == min(len(one), len(other))


good_members = columns(IPV4, 32).filter(lambda members: offered(members, IPV4) is not None)


@given(good_members, st.randoms(use_true_random=False))
def test_keys_match_in_any_case(members: dict[str, object], chance: random.Random) -> None:
    members = members | {"Backend": {"Type": "vxlan", "VNI": 7}}
    spelled = json.dumps({respelled(key, chance): value for key, value in members.items()})
    assert parse_config(spelled) == parse_config(json.dumps(members))


def respelled(key: str, chance: random.Random) -> str:
    return "".join(chance.choice([letter.lower(), letter.upper()]) for letter in key)


WRONG: dict[str, list[object]] = {
    "EnableIPv6": ["true", 1, [], {}],
    "Network": [
        "10.244.0.0",
        "10.244.0.0/33",
        "fd00::/48",
        7,
        True,
        "127.0.0.0/8",
        "10.0.0.0/255.0.0.0",
        "224.0.0.0/8",
    ],
    "SubnetLen": ["24", 24.0, True, -1, 10**30, [24]],
    "SubnetMin": ["10.244.1.0/24", 5, "fd00::1", False],
    "SubnetMax": ["10.244.1", "", {}],
    "Backend": ["vxlan", 1, [], True],
}


@given(st.sets(st.sampled_from(sorted(WRONG)), min_size=1), st.randoms(use_true_random=False), st.data())
def test_every_fault_is_told_with_its_key_as_spelled(
    keys: set[str], chance: random.Random, data: st.DataObject
) -> None:
    wrong = {respelled(key, chance): data.draw(st.sampled_from(WRONG[key])) for key in sorted(keys)}
    missing = {} if "Network" in keys else {"Network": "10.244.0.0/16"}
    # A SubnetLen that is a number can only be judged against a network.
    tellable = {
        key for key in wrong if "Network" not in keys or not is_whole(wrong[key]) or key.lower() != "subnetlen"
    }
    with pytest.raises(ConfigError) as caught:
        parse_config(json.dumps(missing | wrong))
    assert {fault.key for fault in caught.value.faults} == tellable
    assert len(str(caught.value).splitlines()) == len(tellable)
    assert all(fault.value and fault.reason and fault.remedy for fault in caught.value.faults)


def is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


texts = st.one_of(
    st.binary(max_size=60),
    st.text(max_size=60),
    json_values.map(json.dumps),
    st.dictionaries(st.sampled_from([*WRONG, "Other"]), json_values, max_size=4).map(json.dumps),
    st.dictionaries(st.sampled_from(["Type", "Port"]), json_values).map(
        lambda backend: json.dumps({"Network": "10.244.0.0/16", "Backend": backend})
    ),
)


@given(texts)
@example(b"")
@example(b"\xff\xfe{\x00}\x00")
@example("\ufeff{}")
@example('"\ud800"')
@example("[" * 5000)
@example('{"a":' * 5000)
@example('{"Network":NaN}')
@example('{"Network":1e999}')
@example('{"Network":' + "9" * 5000 + "}")
@example('{"Network":"10.244.0.0/16"} trailing')
@example('{"Network":"' + "\\u001b" * 1000 + '"}')
@example(b"\x00" * 1_000_000)
@example(b'"' * 60_000)
@example(b'\\"' * 30_000)
@example('{"Backend":{' + ",".join(f'"\\u0007{number}":[]' for number in range(3000)) + "}}")
def test_any_text_is_a_config_or_a_few_printable_lines(text: bytes | str) -> None:
    try:
        config = parse_config(text)
    except ConfigError as error:
        lines = str(error).splitlines()
    else:
        hash(config)
        lines = list(config.warnings)
    assert len(lines) <= TOLD + 1
    for line in lines:
        assert line.isprintable()
        assert len(line) < 300


@given(st.lists(st.sampled_from(["Network", "network", "NETWORK"]), min_size=2, max_size=5))
def test_of_repeated_keys_the_last_counts(keys: list[str]) -> None:
    members = ",".join(f'"{key}":"10.{number}.0.0/16"' for number, key in enumerate(keys))
    config = parse_config(f"{{{members}}}")
    assert str(config.ranges[0].network) == f"10.{len(keys) - 1}.0.0/16"
    assert any("given more than once" in warning for warning in config.warnings)
