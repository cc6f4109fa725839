"""Endpoints as operators write them: read, or refused in words that help."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlayd.core.leases.store import SUBNETS
from overlayd.store.etcd.endpoints import EtcdEndpoint, parse_endpoint
from overlayd.store.etcd.keys import Keyspace, parse_prefix


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("http://127.0.0.1:2379", ip_address("127.0.0.1"), 2379),
        ("http://127.0.0.1:2379/", ip_address("127.0.0.1"), 2379),
        (" 10.99.255.1:4001 ", ip_address("10.99.255.1"), 4001),
        ("http://[fd00::1]:2379", ip_address("fd00::1"), 2379),
        ("etcd-0.etcd.svc.example:2379", "etcd-0.etcd.svc.example", 2379),
        ("http://ETCD:2379", "etcd", 2379),
        ("https://127.0.0.1:2379", ip_address("127.0.0.1"), 2379),
        ("HTTPS://etcd:2379/", "etcd", 2379),
    ],
)
def test_reads_what_is_right(text: str, host: object, port: int) -> None:
    assert parse_endpoint(text) == EtcdEndpoint(host, port, tls=text.lower().startswith("https"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("unix:///run/etcd.sock", "the scheme 'unix' is neither http nor https"),
        ("http://127.0.0.1", "no port (etcd's own is 2379)"),
        ("127.0.0.1:0", "no port"),
        ("127.0.0.1:65536", "0-65535"),
        ("127.0.0.1:port", "'port'"),
        ("", "no host"),
        ("http://:2379", "no host"),
        ("10.99.255.256:2379", "'10.99.255.256' is neither an address nor a host name"),
        ("fd00::1:2379", ""),
        ("http://[fd00::1:2379", "IPv6"),
        ("http://a b:2379", "'a b' is neither"),
        ("http://-a:2379", "'-a' is neither"),
        ("http://a,b:2379", "'a,b' is neither"),
        ("http://user:secret@etcd:2379", "more than a host and a port"),
        ("http://etcd:2379/v3", "more than a host and a port"),
        ("http://etcd:2379?a", "more than a host and a port"),
    ],
)
def test_refuses_what_is_wrong_and_says_what_would_be_right(text: str, reason: str) -> None:
    with pytest.raises(ValueError) as refused:
        parse_endpoint(text)
    assert str(refused.value).startswith(f"etcd endpoint {text!r}: ")
    assert reason in str(refused.value)
    assert str(refused.value).endswith("; write it like http://10.99.255.1:2379")


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        endpoint = parse_endpoint(text)
    except ValueError:
        return
    assert parse_endpoint(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("10.0.0.1:1", "ipv4:10.0.0.1:1"),
        ("http://[fd00::1]:2", "ipv6:[fd00::1]:2"),
        ("https://etcd-a:3", "dns:///etcd-a:3"),
    ],
)
def test_grpc_is_told_what_kind_of_name_it_is(text: str, target: str) -> None:
    assert parse_endpoint(text).target == target


@pytest.mark.parametrize("text", ["/coreos.com/network", "/coreos.com/network/", " /coreos.com/network// "])
def test_trailing_slashes_of_a_prefix_mean_nothing(text: str) -> None:
    assert Keyspace(parse_prefix(text)).key("config") == b"/coreos.com/network/config"


@pytest.mark.parametrize("text", ["", "/", " // "])
def test_an_empty_prefix_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is empty; write it like /coreos\.com/network"):
        parse_prefix(text)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_name_comes_back_from_its_key(name: str) -> None:
    keys = Keyspace("/cluster/é")
    assert keys.name(keys.key(name)) == name


@given(st.binary())
def test_any_key_below_the_prefix_has_a_name_and_is_in_the_range(tail: bytes) -> None:
    keys = Keyspace("/cluster")
    for (first, end), prefix in ((keys.everything, b"/cluster/"), (keys.below(SUBNETS), b"/cluster/subnets/")):
        assert first <= prefix + tail < end
        assert isinstance(keys.name(prefix + tail), str)
    assert not keys.everything[0] <= b"/cluster0" < keys.everything[1]
