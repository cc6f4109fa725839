"""Options of `overlayd run`: from the command line or the environment, and refused with what would be right."""

from __future__ import annotations

import argparse
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from overlayd.cli.run import configure


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    configure(parser)
    return parser.parse_args(arguments)


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("OVERLAYD_")]:
        monkeypatch.delenv(name)


def test_defaults_are_flannels_where_flannel_has_them() -> None:
    args = parsed()
    assert args.etcd_endpoints == ("http://127.0.0.1:2379",)
    assert args.etcd_prefix == "/coreos.com/network"
    assert args.subnet_file == Path("/run/flannel/subnet.env")
    assert (args.iface, args.public_ip) == (None, None)
    assert args.lease_ttl == 86_400


def test_the_command_line_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERLAYD_LEASE_TTL", "120")
    monkeypatch.setenv("OVERLAYD_PUBLIC_IP", "203.0.113.7")
    monkeypatch.setenv("OVERLAYD_ETCD_ENDPOINTS", "http://10.0.0.1:2379,http://10.0.0.2:2379")
    args = parsed("--lease-ttl", "60")
    assert args.lease_ttl == 60
    assert args.public_ip == IPv4Address("203.0.113.7")
    assert len(args.etcd_endpoints) == 2


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("--lease-ttl", "29", "'29' is not a number of seconds of at least 30"),
        ("--lease-ttl", "1h", "'1h' is not a number of seconds"),
        ("--lease-ttl", "٣٠٠", "is not a number of seconds"),
        ("--public-ip", "10.0.0", "'10.0.0' is not an IPv4 address like 203.0.113.7"),
        ("--public-ip", "127.0.0.1", "not an address that peers can send to"),
        ("--public-ip", "240.0.0.5", "not an address that peers can send to"),
        ("--iface-can-reach", "240.0.0.5", "is not an address of another host"),
        ("--public-ip", "fe80::1", "not an IPv4 address"),
        ("--iface", "", "neither an interface name nor"),
        ("--iface", "a-name-that-is-too-long", "neither an interface name nor"),
        ("--iface", "../eth0", "neither an interface name nor"),
        ("--subnet-file", "subnet.env", "'subnet.env' is relative"),
        ("--state-dir", "state", "is relative"),
        ("--run-dir", "run", "is relative"),
        ("--etcd-prefix", "/", "is empty"),
        ("--etcd-endpoints", "ftp://x:1", "ftp"),
        ("--etcd-endpoints", "http://10.0.0.1:2379,", "''"),
        ("--node-name", "two words", "'two words' is not a node name"),
        ("--node-name", "\x1b[31m", "is not a node name"),
        ("--log-level", "loud", "is not one of debug, info, warning, error"),
    ],
)
def test_a_wrong_value_is_refused_wherever_it_comes_from(
    flag: str, value: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit) as ended:
        parsed(f"{flag}={value}")
    complaint = capsys.readouterr().err
    assert ended.value.code == 2
    assert f"argument {flag}" in complaint
    assert said in complaint

    variable = "OVERLAYD_" + flag[2:].replace("-", "_").upper()
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit):
        parsed()
    complaint = capsys.readouterr().err
    assert variable in complaint
    assert said in complaint
