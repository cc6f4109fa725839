"""Sets the size of the largest packet that passes between the nodes.

A veth pair carries superpackets of up to 64 KB unsegmented, as no wire between two machines does.  With a limit
for each node's device, its kernel segments them first, as it does for a network card without segmentation offload;
nothing joins them again before the other node's stack.
"""

from __future__ import annotations

from overlayd.bench.model import WireSize
from overlayd.bench.topology import BenchTopology

_LIMITS = {
    WireSize.SUPERPACKETS: ("gso_max_size", "65536", "gso_max_segs", "65535"),
    WireSize.MTU_SIZED: ("gso_max_size", "1500", "gso_max_segs", "1"),
}
"""Bytes and segments of one superpacket (ip-link(8)); the first are the defaults of GSO_MAX_SIZE and GSO_MAX_SEGS
(linux/netdevice.h)."""


def set_wire(topology: BenchTopology, wire: WireSize) -> None:
    for node in topology.spec.all_nodes:
        topology.run(node.name, ["ip", "link", "set", "dev", "eth0", *_LIMITS[wire]])
