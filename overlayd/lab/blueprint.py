"""The text that a lab is built from: `ip` commands, programs with their arguments, the network config.

All of it follows from the specification and, for pods, from the subnet that the node leased.  The holder writes
each script to `<lab>/build/` before it runs it, so a lab shows how it was built.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Interface
from pathlib import Path

from overlayd.core.network.addresses import Family
from overlayd.core.network.config import parse_config
from overlayd.core.publish.subnet_env import parse_subnet_env
from overlayd.lab.cni import find_plugins
from overlayd.lab.model import HOME, UNDERLAY, EtcdMember, LabNode, LabPod, LabSpec

BRIDGE = "underlay"
CONFIG_FILE = HOME / "network.json"
MOST_NODES = 250
MOST_MEMBERS = 7
"""Of etcd: more only make it slower (https://etcd.io/docs/v3.5/faq/)."""
LEASE_TTL = 60
"""Seconds: the subnet of a killed daemon is free within a minute, and half a minute without a turn on a busy
machine does not cost a running daemon its own."""

ADMIN_PATH = "/usr/sbin:/sbin"
"""Directories of ip, nft and sysctl, which are not in every user's PATH."""
PASSED_ON = ("LANG", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV")
"""The variables that the lab's programs get from the caller: enough to start, and nothing that would change what
they do (proxies, OVERLAYD_…) or where they write (HOME)."""


@dataclass(frozen=True)
class SubnetFileContent:
    """The content of a subnet.env: the bridge's address in the node's subnet, and the MTU in bytes."""

    bridge: IPv4Interface
    mtu: int


def parse_subnet_file(text: str) -> SubnetFileContent:
    """Read a subnet.env with an IPv4 subnet.  Raises ValueError."""
    network = parse_subnet_env(text).of(Family.IPV4)
    mtu = re.search(r"^FLANNEL_MTU=(\d+)$", text, re.MULTILINE)
    if network is None or mtu is None:
        raise ValueError(f"the subnet file lacks an IPv4 subnet or the MTU: {text!r}")
    return SubnetFileContent(IPv4Interface(f"{network[1]}/{network.prefixlen}"), int(mtu[1]))


def check_spec(spec: LabSpec) -> None:
    """Check that a lab can be built.  Raises ValueError with a text for the user."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,30}", spec.name):
        raise ValueError(
            f"a lab can't be named {spec.name!r}: use up to 31 lower-case letters, digits and hyphens"
        )
    if not 1 <= spec.nodes <= MOST_NODES:
        raise ValueError(f"a lab can't have {spec.nodes} nodes: from 1 to {MOST_NODES} it can")
    if not 1 <= spec.etcd_members <= MOST_MEMBERS:
        raise ValueError(f"etcd can't have {spec.etcd_members} members here: from 1 to {MOST_MEMBERS} it can")
    if spec.datapaths and spec.backend != "udp":
        raise ValueError(f"the {spec.backend} backend has no datapath to choose: the kernel carries its packets")
    span = parse_config(network_config(spec)).ranges[0]
    if span.network.overlaps(UNDERLAY):
        raise ValueError(f"network {span.network} overlaps {UNDERLAY}, which is the lab's underlay")
    if spec.nodes > span.capacity:
        raise ValueError(
            f"network {span.network} has {span.capacity} subnets (/{span.subnet_len}), "
            f"too few for {spec.nodes} nodes"
        )
    room = span.step - 3  # all but the network's, the bridge's and the broadcast address
    if not 0 <= spec.pods <= room:
        raise ValueError(f"a node can't have {spec.pods} pods: a /{span.subnet_len} has room for 0 to {room}")


def underlay_script(spec: LabSpec) -> str:
    """Script the lab's root namespace: a bridge with etcd's addresses, and a veth pair to every node."""
    lines = [
        "link set lo up",
        f"link add {BRIDGE} type bridge mcast_snooping 0",
        *(f"addr add {member.address}/{UNDERLAY.prefixlen} dev {BRIDGE}" for member in spec.all_etcd_members),
        f"link set {BRIDGE} up",
    ]
    for node in spec.all_nodes:
        lines += [
            f"netns add {node.name}",
            f"link add {node.name} type veth peer name eth0 netns {node.name}",
            f"link set {node.name} master {BRIDGE} up",
        ]
    return _script(lines)


UNLIMITED_ICMP = ["sh", "-c", "echo 0 > /proc/sys/net/ipv4/icmp_ratelimit || :"]
"""Lets a node answer every datagram whose time to live is too short.

A kernel limits such messages to one destination to one a second, after a burst of 6; checks send faster than that.
"""


def node_script(node: LabNode) -> str:
    """Script the node's namespace: its end of the veth pair."""
    return _script(
        [
            "link set lo up",
            f"addr add {node.underlay}/{UNDERLAY.prefixlen} dev eth0",
            "link set eth0 up",
        ]
    )


def bridge_script(pods: tuple[LabPod, ...], subnet: SubnetFileContent) -> str:
    """Script, in the node's namespace, what the CNI bridge plugin does there.

    That is a bridge with the subnet's first address and a port for every pod, in hairpin mode as in our conflist.
    """
    lines = [
        "link add cni0 type bridge",
        f"link set cni0 mtu {subnet.mtu} up",
        f"addr add {subnet.bridge} dev cni0",
    ]
    for pod in pods:
        lines += [
            f"netns add {pod.name}",
            f"link add {pod.name} mtu {subnet.mtu} type veth peer name eth0 mtu {subnet.mtu} netns {pod.name}",
            f"link set {pod.name} master cni0 up",
            f"link set {pod.name} type bridge_slave hairpin on",
        ]
    return _script(lines)


def pod_script(pod: LabPod, subnet: SubnetFileContent) -> str:
    """Script the pod's namespace: its address, and the default route through the bridge."""
    network = subnet.bridge.network
    return _script(
        [
            "link set lo up",
            f"addr add {pod.address(network)}/{network.prefixlen} dev eth0",
            "link set eth0 up",
            f"route add default via {subnet.bridge.ip}",
        ]
    )


def _script(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"


def network_config(spec: LabSpec) -> str:
    return json.dumps({"Network": spec.network, "Backend": {"Type": spec.backend}})


def etcd_command(program: Path, member: EtcdMember, spec: LabSpec) -> list[str]:
    """Build the command of one etcd server; its data are on the lab's tmpfs, where fsync has no meaning."""
    cluster = ",".join(f"{m.name}={m.peer_url}" for m in spec.all_etcd_members)
    return [
        str(program),
        *("--name", member.name),
        *("--data-dir", str(member.home / "data")),
        *("--listen-client-urls", member.client_url),
        *("--advertise-client-urls", member.client_url),
        *("--listen-peer-urls", member.peer_url),
        *("--initial-advertise-peer-urls", member.peer_url),
        *("--initial-cluster", cluster),
        *("--log-level", "warn"),
        "--unsafe-no-fsync",
    ]


def config_command(spec: LabSpec) -> list[str]:
    return [*_overlayd("config", "set"), *_endpoints(spec), str(CONFIG_FILE)]


def daemon_command(node: LabNode, spec: LabSpec) -> list[str]:
    """Build the command of a node's daemon: the same program as on a real host."""
    datapath = spec.datapath(node)
    return [
        *_overlayd("run"),
        *_endpoints(spec),
        *("--iface", "eth0"),
        *("--node-name", node.name),
        *("--subnet-file", str(node.subnet_file)),
        *("--run-dir", str(node.run_dir)),
        *("--state-dir", str(node.state_dir)),
        *("--identity", "volatile"),
        *("--lease-ttl", str(LEASE_TTL)),
        *(("--datapath", datapath) if datapath is not None else ()),
        *(("--cni-conf-dir", str(node.cni_dir), "--cni-bin-dir", str(find_plugins())) if spec.cni else ()),
        *(("--ip-masq",) if spec.ip_masq else ()),
    ]


def _overlayd(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "overlayd", *arguments]


def _endpoints(spec: LabSpec) -> tuple[str, str]:
    return ("--etcd-endpoints", ",".join(spec.etcd_endpoints))


def program_environment(caller: Mapping[str, str]) -> dict[str, str]:
    """Compose the environment of the programs that the holder starts."""
    passed_on = {name: caller[name] for name in PASSED_ON if name in caller}
    own = {"PATH": search_path(caller), "PYTHONUNBUFFERED": "1", "TMPDIR": str(HOME / "tmp")}
    return own | passed_on


def visitor_environment(caller: Mapping[str, str], spec: LabSpec, place: str | None) -> dict[str, str]:
    """Compose the environment of a command that the user runs in the lab.

    It is the user's own, with what makes `overlayd status` on a node ask that node's daemon, and
    `overlayd config show` and etcdctl ask the lab's etcd.
    """
    environment = {name: value for name, value in caller.items() if not name.startswith("OVERLAYD_")}
    endpoints = ",".join(spec.etcd_endpoints)
    environment |= {"OVERLAYD_ETCD_ENDPOINTS": endpoints, "ETCDCTL_ENDPOINTS": endpoints}
    environment["PATH"] = f"{Path(sys.executable).parent}:{search_path(caller)}"
    for node in spec.all_nodes:
        if node.name == place:
            environment |= {
                "OVERLAYD_RUN_DIR": str(node.run_dir),
                "OVERLAYD_STATE_DIR": str(node.state_dir),
                "OVERLAYD_SUBNET_FILE": str(node.subnet_file),
            }
    return environment


def search_path(caller: Mapping[str, str]) -> str:
    """Return the PATH of programs in a lab."""
    return f"{caller.get('PATH', '/usr/bin:/bin')}:{ADMIN_PATH}"
