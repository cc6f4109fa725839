"""How a lab is made, as text."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlayd.core.network.config import ConfigError, parse_config
from overlayd.lab.blueprint import (
    bridge_script,
    check_spec,
    daemon_command,
    etcd_command,
    network_config,
    node_script,
    parse_subnet_file,
    pod_script,
    program_environment,
    underlay_script,
    visitor_environment,
)
from overlayd.lab.model import HOME, LabSpec

SUBNET_ENV = """\
FLANNEL_NETWORK=10.244.0.0/16
FLANNEL_SUBNET=10.244.7.1/24
FLANNEL_MTU=1450
FLANNEL_IPMASQ=false
"""
SUBNET = parse_subnet_file(SUBNET_ENV)

specs = st.builds(
    LabSpec,
    nodes=st.integers(1, 250),
    pods=st.integers(0, 253),
    network=st.sampled_from(["10.244.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "10.128.0.0/9"]),
    etcd_members=st.integers(1, 3),
)


def test_scripts_of_a_small_lab() -> None:
    spec = LabSpec(nodes=2, pods=1)
    assert underlay_script(spec) == (
        "link set lo up\n"
        "link add underlay type bridge mcast_snooping 0\n"
        "addr add 10.99.255.1/16 dev underlay\n"
        "link set underlay up\n"
        "netns add node1\n"
        "link add node1 type veth peer name eth0 netns node1\n"
        "link set node1 master underlay up\n"
        "netns add node2\n"
        "link add node2 type veth peer name eth0 netns node2\n"
        "link set node2 master underlay up\n"
    )
    assert node_script(spec.all_nodes[1]) == ("link set lo up\naddr add 10.99.0.2/16 dev eth0\nlink set eth0 up\n")
    assert bridge_script(spec.all_pods[:1], SUBNET) == (
        "link add cni0 type bridge\n"
        "link set cni0 mtu 1450 up\n"
        "addr add 10.244.7.1/24 dev cni0\n"
        "netns add pod1-1\n"
        "link add pod1-1 mtu 1450 type veth peer name eth0 mtu 1450 netns pod1-1\n"
        "link set pod1-1 master cni0 up\n"
        "link set pod1-1 type bridge_slave hairpin on\n"
    )
    assert pod_script(spec.all_pods[0], SUBNET) == (
        "link set lo up\naddr add 10.244.7.2/24 dev eth0\nlink set eth0 up\nroute add default via 10.244.7.1\n"
    )


@given(specs)
def test_names_and_addresses_are_distinct_and_fit(spec: LabSpec) -> None:
    check_spec(spec)
    names = [node.name for node in spec.all_nodes] + [pod.name for pod in spec.all_pods]
    assert len(set(names)) == len(names)
    assert all(len(name) < 16 for name in names)  # linux/if.h: IFNAMSIZ, with the NUL
    addresses = [node.underlay for node in spec.all_nodes] + [m.address for m in spec.all_etcd_members]
    assert len(set(addresses)) == len(addresses)
    for pod in spec.all_pods[-2:]:
        address = pod.address(SUBNET.bridge.network)
        assert address in SUBNET.bridge.network
        assert address not in (SUBNET.bridge.ip, SUBNET.bridge.network.broadcast_address)


@given(specs)
def test_the_network_config_is_one_that_the_daemon_takes(spec: LabSpec) -> None:
    config = parse_config(network_config(spec))
    assert (str(config.ranges[0].network), config.backend_type) == (spec.network, spec.backend)
    assert config.warnings == ()


def test_a_network_that_is_none_is_refused_by_the_rules_of_the_config() -> None:
    with pytest.raises(ConfigError, match="Network"):
        check_spec(LabSpec(network="10.244.0.0"))


def test_subnet_files_are_read() -> None:
    assert (str(SUBNET.bridge), SUBNET.mtu) == ("10.244.7.1/24", 1450)
    with pytest.raises(ValueError, match="lacks an IPv4 subnet or the MTU"):
        parse_subnet_file(SUBNET_ENV.replace("MTU", "MTV"))


def test_programs_keep_to_the_lab() -> None:
    spec = LabSpec(nodes=2, etcd_members=2)
    daemon = daemon_command(spec.all_nodes[1], spec)
    assert daemon[1:4] == ["-m", "overlayd", "run"]
    assert "http://10.99.255.1:2379,http://10.99.255.2:2379" in daemon
    etcd = etcd_command(HOME / "etcd", spec.all_etcd_members[0], spec)
    for argument in [*daemon[4:], *etcd]:
        assert not re.match(r"/(?!run/lab/)", argument), argument
        assert "127.0.0.1" not in argument


def test_what_the_caller_has_in_the_environment_does_not_steer_the_daemons() -> None:
    caller = {
        "PATH": "/bin",
        "http_proxy": "http://proxy",
        "OVERLAYD_IFACE": "wlan0",
        "HOME": "/home/x",
        "LANG": "C",
    }
    assert program_environment(caller) == {
        "PATH": "/bin:/usr/sbin:/sbin",
        "LANG": "C",
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": "/run/lab/tmp",
    }


def test_a_visitor_of_a_node_talks_to_its_daemon() -> None:
    spec = LabSpec(nodes=2)
    caller = {"PATH": "/bin", "TERM": "xterm", "OVERLAYD_RUN_DIR": "/run/overlayd"}
    on_node = visitor_environment(caller, spec, "node2")
    assert on_node["OVERLAYD_RUN_DIR"] == "/run/lab/node2/run"
    assert on_node["TERM"] == "xterm"
    in_pod = visitor_environment(caller, spec, "pod1-1")
    assert "OVERLAYD_RUN_DIR" not in in_pod
    assert in_pod["OVERLAYD_ETCD_ENDPOINTS"] == "http://10.99.255.1:2379"


def test_the_network_config_names_the_backend() -> None:
    assert json.loads(network_config(LabSpec(backend="host-gw"))) == {
        "Network": "10.244.0.0/16",
        "Backend": {"Type": "host-gw"},
    }
