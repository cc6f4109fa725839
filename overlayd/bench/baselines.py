"""The baselines: carries packets between the pods of a lab by other means than its daemons.

The lab's own overlay is host-gw, which has neither a device nor a table of nftables.  The route to a single pod is
more specific than its routes, so the packets take the baseline's.
"""

from __future__ import annotations

from contextlib import ExitStack

from overlayd.bench.model import Baseline
from overlayd.bench.topology import BenchTopology
from overlayd.lab.model import LabPod

LOOP_DEVICE = "loop0"
LOOP_PORT = "8285"
LOOP_MTU = "1472"
"""The underlay's MTU, less the headers of IPv4 (20 bytes) and UDP (8)."""
VXLAN_DEVICE = "vxlan0"
VXLAN_MTU = "1450"
"""The underlay's MTU, less the headers of IPv4 (20), UDP (8), VXLAN (8) and the inner Ethernet (14)."""


def set_up(topology: BenchTopology, baseline: Baseline, stack: ExitStack) -> None:
    """Take the pods' packets over; programs that carry them end with the stack.  Raises BenchError."""
    for own, other in topology.pairs:
        match baseline:
            case Baseline.LOOP:
                _run_loop(topology, own, other, stack, [topology.tools.plain], str(other.node.underlay))
            case Baseline.FLANNEL_LOOP:
                route = f"{topology.addresses[other]}/24={other.node.underlay}"
                _run_loop(topology, own, other, stack, [topology.tools.flannel_like], route)
            case Baseline.VXLAN_BY_HAND:
                _make_vxlan(topology, own, other)
            case Baseline.VXLAN_AND_NAT_BY_HAND:
                _make_vxlan(topology, own, other)
                _masquerade(topology, own)


def _run_loop(
    topology: BenchTopology, own: LabPod, other: LabPod, stack: ExitStack, program: list[str], peer: str
) -> None:
    stack.enter_context(topology.running(own.node.name, [*program, LOOP_DEVICE, LOOP_PORT, peer], "ready"))
    _ip(topology, own.node.name, f"link set {LOOP_DEVICE} mtu {LOOP_MTU} up")
    _ip(topology, own.node.name, f"route add {topology.addresses[other]} dev {LOOP_DEVICE}")
    _ip(topology, own.name, f"link set eth0 mtu {LOOP_MTU}")


def _make_vxlan(topology: BenchTopology, own: LabPod, other: LabPod) -> None:
    """Build what the vxlan backend builds, and the bridge and the pod's device as they are in a vxlan lab."""
    node, tunnel = own.node.name, _first_address(topology, other)
    _ip(
        topology,
        node,
        f"link add {VXLAN_DEVICE} address {_mac(own)} mtu {VXLAN_MTU} type vxlan id 1 dstport 8472 "
        f"local {own.node.underlay} dev eth0 nolearning",
    )
    _ip(topology, node, f"address add {_first_address(topology, own)}/32 dev {VXLAN_DEVICE}")
    _ip(topology, node, f"link set {VXLAN_DEVICE} up")
    entry = f"bridge fdb add {_mac(other)} dev {VXLAN_DEVICE} dst {other.node.underlay} self permanent"
    topology.run(node, entry.split())
    _ip(topology, node, f"neighbour add {tunnel} lladdr {_mac(other)} dev {VXLAN_DEVICE} nud permanent")
    _ip(topology, node, f"route add {topology.addresses[other]} via {tunnel} dev {VXLAN_DEVICE} onlink")
    for place, device in ((node, "cni0"), (node, own.name), (own.name, "eth0")):
        _ip(topology, place, f"link set {device} mtu {VXLAN_MTU}")


def _masquerade(topology: BenchTopology, own: LabPod) -> None:
    """Masquerade what the node's pods send out of the network, by one rule."""
    rule = f"ip saddr {topology.addresses[own]} ip daddr != {topology.spec.network} masquerade"
    script = f"""
        table ip nat {{
            chain postrouting {{ type nat hook postrouting priority 100; {rule}; }}
        }}
    """
    topology.run(own.node.name, ["nft", script])


def _first_address(topology: BenchTopology, pod: LabPod) -> str:
    """Return the first address of the pod's /24, which is its node's in the tunnel."""
    return topology.addresses[pod].rpartition(".")[0] + ".0"


def _mac(pod: LabPod) -> str:
    return f"02:00:00:00:00:{pod.node.number:02x}"


def _ip(topology: BenchTopology, place: str, command: str) -> None:
    topology.run(place, ["ip", *command.split()])
