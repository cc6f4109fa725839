"""How much passes between the nodes at once.

A virtual cable hands superpackets of up to 64 KB from one end to the other whole, which no wire between two
machines does.  With a limit for each node's device, its kernel cuts them first, as it does for a network card
without segmentation offload; nothing joins them again before the other node's stack.
"""

from __future__ import annotations

from overlayd.bench.model import WireSize
from overlayd.bench.topology import BenchTopology

_LIMITS = {
    WireSize.SUPERPACKETS: ("gso_max_size", "65536", "gso_max_segs", "65535"),
    WireSize.MTU_SIZED: ("gso_max_size", "1500", "gso_max_segs", "1"),
}
"""Bytes and segments of one superpacket (ip-link(8)); the first are GSO_MAX_SIZE's and GSO_MAX_SEGS' defaults,
linux/netdevice.h."""


def set_wire(topology: BenchTopology, wire: WireSize) -> None:
    for node in topology.spec.all_nodes:
        topology.run(node.name, ["ip", "link", "set", "dev", "eth0", *_LIMITS[wire]])
