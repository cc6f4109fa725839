"""A lab without daemons: namespaces joined by a bridge, and every route, neighbour and FDB entry set by hand.

It stands where a real lab stands (the same names, addresses and files), so that the checks can be tried without
a store and without a daemon.  `python -m support.static_lab BACKEND NODES PODS -- COMMAND…` makes it in mount and
network namespaces of its own, runs the command inside and ends with its exit status; all of it goes then.
"""

from __future__ import annotations

import os
import subprocess
import sys
from ipaddress import IPv4Network
from pathlib import Path

import msgspec

from overlayd.lab.model import HOME, LabNode, LabPod, LabSpec
from overlayd.lab.namespaces import CLONE_NEWNET, CLONE_NEWNS, MS_PRIVATE, MS_REC, mount, unshare
from overlayd.lab.snapshot import SNAPSHOT_FILE, LabSnapshot, NodeSnapshot, PodSnapshot

UNDERLAY_MTU = 1500
OVERHEAD = {"vxlan": 50, "host-gw": 0}


def main() -> int:
    backend, nodes, pods, dashes, *command = sys.argv[1:]
    assert dashes == "--"
    spec = LabSpec("static", int(nodes), int(pods), backend)
    unshare(CLONE_NEWNS | CLONE_NEWNET)
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    mount("tmpfs", "/run", "tmpfs")
    Path("/run/netns").mkdir()
    Path(HOME).mkdir()
    build(spec)
    SNAPSHOT_FILE.write_bytes(msgspec.json.encode(snapshot(spec)))
    return subprocess.run(command, check=False).returncode


def subnet(node: LabNode) -> IPv4Network:
    return IPv4Network(f"10.244.{node.number}.0/24")


def mtu(spec: LabSpec) -> int:
    return UNDERLAY_MTU - OVERHEAD[spec.backend]


def snapshot(spec: LabSpec) -> LabSnapshot:
    return LabSnapshot(
        spec,
        etcd=(),
        nodes=tuple(
            NodeSnapshot(node.name, str(node.underlay), subnet=str(subnet(node)), mtu=mtu(spec))
            for node in spec.all_nodes
        ),
        pods=tuple(
            PodSnapshot(pod.name, pod.node.name, str(pod.address(subnet(pod.node)))) for pod in spec.all_pods
        ),
        ready=True,
    )


def build(spec: LabSpec) -> None:
    ip(None, ["link add underlay type bridge", "link set underlay up"])
    for node in spec.all_nodes:
        subprocess.run(["ip", "netns", "add", node.name], check=True)
        ip(None, [f"link add v{node.number} type veth peer name eth0 netns {node.name}"])
        ip(None, [f"link set v{node.number} master underlay up"])
        first = subnet(node)[1]
        ip(
            node.name,
            [
                "link set lo up",
                f"addr add {node.underlay}/16 dev eth0",
                "link set eth0 up",
                "link add cni0 type bridge",
                f"link set cni0 mtu {mtu(spec)} up",
                f"addr add {first}/24 dev cni0",
            ],
        )
        forward = ["ip", "netns", "exec", node.name, "sysctl", "-qw", "net.ipv4.ip_forward=1"]
        subprocess.run(forward, check=True)
    for pod in spec.all_pods:
        add_pod(pod, mtu(spec))
    for node in spec.all_nodes:
        if spec.backend == "vxlan":
            ip(
                node.name,
                [
                    f"link add ovl.1 address {mac(node)} mtu {mtu(spec)} type vxlan id 1 local {node.underlay}"
                    " dev eth0 dstport 8472 nolearning",
                    f"addr add {subnet(node)[0]}/32 dev ovl.1",
                    "link set ovl.1 up",
                ],
            )
        for peer in spec.all_nodes:
            if peer != node:
                add_peer(spec, node, peer)


def add_pod(pod: LabPod, size: int) -> None:
    subprocess.run(["ip", "netns", "add", pod.name], check=True)
    home = subnet(pod.node)
    port = f"veth{pod.number}"
    ip(pod.node.name, [f"link add {port} mtu {size} type veth peer name eth0 mtu {size} netns {pod.name}"])
    ip(pod.node.name, [f"link set {port} master cni0 up", f"link set {port} type bridge_slave hairpin on"])
    ip(
        pod.name,
        [
            "link set lo up",
            f"addr add {pod.address(home)}/24 dev eth0",
            "link set eth0 up",
            f"route add default via {home[1]}",
        ],
    )


def add_peer(spec: LabSpec, node: LabNode, peer: LabNode) -> None:
    away = subnet(peer)
    if spec.backend == "host-gw":
        ip(node.name, [f"route add {away} via {peer.underlay} dev eth0"])
        return
    ip(node.name, [f"neigh add {away[0]} lladdr {mac(peer)} dev ovl.1 nud permanent"])
    entry = ["bridge", "-n", node.name, "fdb", "add", mac(peer), "dev", "ovl.1", "dst", str(peer.underlay)]
    subprocess.run([*entry, "self", "permanent"], check=True)
    ip(node.name, [f"route add {away} via {away[0]} dev ovl.1 onlink"])


def mac(node: LabNode) -> str:
    return f"0a:00:00:00:00:{node.number:02x}"


def ip(netns: str | None, lines: list[str]) -> None:
    where = ["-n", netns] if netns else []
    subprocess.run(["ip", *where, "-batch", "-"], input="\n".join(lines), text=True, check=True, env=os.environ)


if __name__ == "__main__":
    sys.exit(main())
