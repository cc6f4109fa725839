"""A node's status in which nothing is wrong, for tests that spoil one thing in it at a time."""

from __future__ import annotations

from overlayd.core.status.status import LeaseStatus, PeerState, PeerStatus, Status, UnderlayStatus

NOW = 100_000.0
"""The instant at which the tests ask, in seconds of CLOCK_BOOTTIME."""
GOOD = Status(
    version="0.1.0",
    at=NOW - 5,
    resync=30.0,
    node="node1",
    node_id="ab12",
    started=NOW - 7_200,
    belief="held",
    in_sync=True,
    revision=17,
    lease=LeaseStatus("10.244.7.0/24", since=NOW - 7_190, until=NOW + 86_000),
    network="10.244.0.0/16",
    programmed=True,
    underlay=UnderlayStatus("eth0", "10.99.0.1", "10.99.0.1", 1500),
)
REFUSED = PeerStatus("node4", "10.244.4.0/24", "10.99.0.4", PeerState.REFUSED, NOW, "runs backend 'udp'")
