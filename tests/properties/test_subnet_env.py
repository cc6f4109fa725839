"""subnet.env: flannel's text, byte for byte, and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlayd.core.leases.subnets import subnet_at
from overlayd.core.network.addresses import Subnet
from overlayd.core.network.config import NetworkConfig, parse_config
from overlayd.core.publish.subnet_env import SubnetEnvError, format_subnet_env, parse_subnet_env

SINGLE = parse_config('{"Network": "10.244.0.0/16"}')
DUAL = parse_config('{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:10:244::/48"}')
SIX = parse_config('{"EnableIPv4": false, "EnableIPv6": true, "IPv6Network": "fd00:10:244::/48"}')


def test_the_text_is_flannels() -> None:
    assert format_subnet_env(SINGLE, Subnet.parse("10.244.40.0/24"), 1450) == (
        "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.40.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n"
    )
    assert format_subnet_env(DUAL, Subnet.parse("10.244.40.0/24,fd00:10:244:15::/64"), 1450, ipmasq=True) == (
        "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.40.1/24\n"
        "FLANNEL_IPV6_NETWORK=fd00:10:244::/48\nFLANNEL_IPV6_SUBNET=fd00:10:244:15::1/64\n"
        "FLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
    )


@given(st.sampled_from([SINGLE, DUAL, SIX]), st.integers(0, 254), st.integers(576, 9000), st.booleans())
def test_the_subnet_reads_back(config: NetworkConfig, number: int, mtu: int, ipmasq: bool) -> None:
    subnet = subnet_at(config, number)
    assert parse_subnet_env(format_subnet_env(config, subnet, mtu, ipmasq)) == subnet


def test_comments_blank_lines_and_other_names_are_skipped() -> None:
    text = "# of yesterday\n\n  FLANNEL_SUBNET=10.244.40.1/24  \r\nFLANNEL_MTU=\nOTHER=x=y\n"
    assert parse_subnet_env(text) == Subnet.parse("10.244.40.0/24")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "there is no line FLANNEL_SUBNET or FLANNEL_IPV6_SUBNET"),
        ("FLANNEL_SUBNET\n", "line 1 is 'FLANNEL_SUBNET', not NAME=value"),
        (
            "FLANNEL_SUBNET=10.244.40.1/24\nFLANNEL_SUBNET=10.244.41.1/24",
            "line 2 gives 'FLANNEL_SUBNET' a second time",
        ),
        ("FLANNEL_SUBNET=10.244.40.0/24", "not the first address of 10.244.40.0/24: 10.244.40.1/24"),
        ("FLANNEL_SUBNET=10.244.40.1", "leaves fewer than four addresses"),
        ("FLANNEL_SUBNET=10.244.40.1/255.255.255.0", "not the first address"),
        ("FLANNEL_SUBNET=10.244.40.01/24", "FLANNEL_SUBNET is '10.244.40.01/24'"),
        ("FLANNEL_SUBNET=fd00::1/64", "FLANNEL_SUBNET is 'fd00::1/64'"),
        ("FLANNEL_IPV6_SUBNET=10.244.40.1/24", "FLANNEL_IPV6_SUBNET is '10.244.40.1/24'"),
        ("FLANNEL_SUBNET=", "FLANNEL_SUBNET is ''"),
        ("FLANNEL_SUBNET=255.255.255.255/32", "leaves fewer than four addresses"),
        ("FLANNEL_IPV6_SUBNET=fd00::1%eth0/64", "not the first address"),
    ],
)
def test_a_wrong_file_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(SubnetEnvError) as caught:
        parse_subnet_env(text)
    assert reason in str(caught.value)


@given(st.text() | st.text().map(lambda text: f"FLANNEL_SUBNET={text}"))
def test_any_text_is_a_subnet_or_one_short_printable_line(text: str) -> None:
    try:
        parse_subnet_env(text)
    except SubnetEnvError as error:
        reason = str(error)
    else:
        reason = "read"
    assert reason.isprintable()
    assert len(reason) < 250
