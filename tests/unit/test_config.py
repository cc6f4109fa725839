"""The network config by example: what is said of it, word for word, and what the backend is asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, cast

import pytest

from overlayd.core.network.addresses import Family
from overlayd.core.network.backend import Backend, BackendOptionError
from overlayd.core.network.backend_choice import check_backend, unknown_options
from overlayd.core.network.config import ConfigError, parse_config


def faults(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text)
    return str(caught.value).splitlines()


def test_the_usual_config() -> None:
    config = parse_config('{"Network": "10.244.0.0/16", "Backend": {"Type": "VXLAN", "VNI": 3}}')
    assert config.capacity == 255
    assert [str(span.first) for span in config.ranges] == ["10.244.1.0"]
    assert config.backend_type == "vxlan"
    assert config.options == {"vni": 3}
    assert config.warnings == ()


def test_without_a_backend_it_is_vxlan() -> None:
    assert parse_config('{"Network": "10.244.0.0/16"}').backend_type == "vxlan"
    assert parse_config('{"Network": "10.244.0.0/16", "Backend": null}').backend_type == "vxlan"
    assert parse_config('{"Network": "10.244.0.0/16", "Backend": {}}').backend_type == "vxlan"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ['the config: is empty; give a JSON object such as {"Network": "10.244.0.0/16"}']),
        (
            "[]",
            ['the config: is an array, not an object; give a JSON object such as {"Network": "10.244.0.0/16"}'],
        ),
        ("{}", ["Network: is required while EnableIPv4 is true; give a network such as '10.244.0.0/16'"]),
        (
            '{"network": "10.244.0.0"}',
            ["network '10.244.0.0': is no IPv4 network in CIDR notation; give a network such as '10.244.0.0/16'"],
        ),
        (
            '{"Network": "10.244.0.0/29"}',
            [
                "Network '10.244.0.0/29': is too small: four subnets of four addresses need a /28 or larger;"
                " give a network such as '10.244.0.0/16'"
            ],
        ),
        (
            '{"Network": "10.244.0.0/16", "SubnetLen": 31}',
            ["SubnetLen 31: leaves fewer than four addresses per subnet; use a length from 18 to 30"],
        ),
        (
            '{"Network": "10.244.0.0/16", "subnetlen": 17}',
            ["subnetlen 17: leaves fewer than four subnets in 10.244.0.0/16; use a length from 18 to 30"],
        ),
        (
            '{"Network": "10.244.0.0/16", "SubnetLen": true, "SubnetMin": "10.245.0.0", "SubnetMax": 7}',
            [
                "SubnetLen true: is a truth value, not a whole number; use 24, for one",
                "SubnetMax 7: is no IPv4 address; give the first address of a subnet, and no length",
            ],
        ),
        (
            '{"Network": "10.244.0.0/16", "SubnetMin": "10.245.0.0", "SubnetMax": "10.244.9.7"}',
            [
                "SubnetMin '10.245.0.0': is outside the network 10.244.0.0/16; use where one of its /24 begins",
                "SubnetMax '10.244.9.7': is not where a /24 begins; use 10.244.9.0, for one",
            ],
        ),
        (
            '{"Network": "10.244.0.0/16", "SubnetMin": "10.244.9.0", "SubnetMax": "10.244.8.0"}',
            [
                "SubnetMin '10.244.9.0': leaves no subnet between 10.244.9.0 and 10.244.8.0;"
                " give a SubnetMin that is not after SubnetMax, or leave both out"
            ],
        ),
        (
            '{"EnableIPv4": false}',
            ["EnableIPv4 false: no address family is left; set EnableIPv4 or EnableIPv6 to true"],
        ),
        (
            '{"Network": "10.244.0.0/16", "Backend": {"Type": 1, "Port": [8472]}}',
            [
                'Backend.Type 1: is no name of a backend; give "vxlan", for one',
                "Backend.Port [8472]: is an array; an option is text, a number, true or false",
            ],
        ),
        (
            '{"Network": "127.0.0.0/8"}',
            [
                "Network '127.0.0.0/8': reaches into 127.0.0.0/8, in which no host forwards packets;"
                " give a network such as '10.244.0.0/16'"
            ],
        ),
    ],
)
def test_faults_are_told_in_full(text: str, said: list[str]) -> None:
    assert faults(text) == said


def test_what_has_no_effect_is_a_warning() -> None:
    config = parse_config(
        '{"Network": "10.244.3.0/16", "Netwrok": 1, "subnetlen": 24, "SubnetLen": 26, "IPv6SubnetLen": 64}'
    )
    assert config.warnings == (
        "SubnetLen is given more than once: the last one counts",
        "Netwrok is unknown and has no effect",
        "Network 10.244.3.0/16 has host bits set: it is read as 10.244.0.0/16",
        "IPv6SubnetLen has no effect while EnableIPv6 is false",
    )
    assert config.ranges[0].subnet_len == 26


def test_brackets_in_text_are_no_nesting() -> None:
    config = parse_config(json.dumps({"Network": "10.244.0.0/16", "Backend": {"Note": '[{"' * 100}}))
    assert config.options == {"note": '[{"' * 100}


def test_zero_means_not_given_as_in_flannel() -> None:
    given = parse_config('{"Network": "10.244.0.0/16", "SubnetLen": 0, "SubnetMin": "0.0.0.0", "SubnetMax": null}')
    assert given == parse_config('{"Network": "10.244.0.0/16"}')


@dataclass(frozen=True)
class Tunnel:
    """As much of a backend as the config has to do with."""

    kind: ClassVar[str] = "tunnel"
    key: int

    families: ClassVar[frozenset[Family]] = frozenset({Family.IPV4})
    options: ClassVar[frozenset[str]] = frozenset({"Key"})

    @classmethod
    def parse(cls, options: Mapping[str, object]) -> Tunnel:
        key = options.get("key", 1)
        if not isinstance(key, int):
            raise BackendOptionError("Key", f"{key!r} is not a number")
        return cls(key)


BACKENDS = cast("Mapping[str, type[Backend]]", {"tunnel": Tunnel})


def test_the_backend_reads_its_options() -> None:
    config = parse_config('{"Network": "10.244.0.0/16", "Backend": {"Type": "Tunnel", "KEY": 5, "Kee": 6}}')
    backend = check_backend(config, BACKENDS)
    assert isinstance(backend, Tunnel)
    assert backend.key == 5
    assert unknown_options(config, cast(Backend, backend)) == (
        "Backend.Kee is unknown and has no effect: tunnel reads Key",
    )


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        ('{"Type": "ipip"}', "Backend.Type 'ipip': is no backend that is installed; installed: tunnel"),
        (
            '{"Type": "tunnel", "kEy": "x"}',
            "Backend.kEy: 'x' is not a number; leave it out for the default of tunnel",
        ),
    ],
)
def test_what_the_backend_refuses_is_named_as_it_was_spelled(backend: str, said: str) -> None:
    config = parse_config(f'{{"Network": "10.244.0.0/16", "Backend": {backend}}}')
    with pytest.raises(ConfigError) as caught:
        check_backend(config, BACKENDS)
    assert str(caught.value) == said
