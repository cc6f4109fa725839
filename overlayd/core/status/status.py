"""What a daemon says about itself, and what may be concluded from it.

A status is a fact about one instant, `at`; the judgement is made when somebody asks, at a later instant.  Old
or missing facts are never called healthy: they are called unknown.

All instants are seconds of CLOCK_BOOTTIME on the daemon's machine.
"""

from __future__ import annotations

import enum

import msgspec

from overlayd.core.status.registry import ConditionType, Truth

STALE_AFTER = 2.0
"""Resync intervals after which a status is too old to conclude anything from."""


class Verdict(enum.IntEnum):
    """The exit status of `overlayd status`."""

    HEALTHY = 0
    DEGRADED = 1
    UNKNOWN = 2


class PeerState(enum.Enum):
    IN_SYNC = "in sync"
    PENDING = "pending"
    FAILED = "failed"
    """The kernel refused an entry; it is tried again."""
    REFUSED = "refused"
    """Its lease holds what this node can't serve."""


class Condition(msgspec.Struct, frozen=True):
    """Whether something is so, since when, and if it is not well, for which reason.

    `reason` is the code of the problem that says it, or a peer's state; "" where nothing is wrong.  `message` is
    the sentence about it.
    """

    type: ConditionType
    status: Truth
    since: float
    reason: str = ""
    message: str = ""


class PeerStatus(msgspec.Struct, frozen=True):
    """One peer.  `since` is when it entered `state`; `reason` is "" for a peer in sync.

    `conditions` say the same in the form that a node's have, as of the last look at the kernel.
    """

    node: str
    subnet: str
    public_ip: str
    state: PeerState
    since: float
    reason: str = ""
    conditions: tuple[Condition, ...] = ()


class LeaseStatus(msgspec.Struct, frozen=True):
    """The own lease.  `until` is None for a reservation, which does not expire; `since` is when it was won."""

    subnet: str
    since: float
    until: float | None


class UnderlayStatus(msgspec.Struct, frozen=True):
    """The interface below: its own address, its MTU in bytes, the address that peers are told."""

    link: str
    address: str
    public_ip: str
    mtu: int


class ReconcilerStatus(msgspec.Struct, frozen=True):
    """The changes of the kernel since the daemon started.

    `reasons` count passes by what woke them, `seconds` is how long they took in all, `within` how many took no
    longer than so many seconds.  `done` and `refused` count operations by verb; `retrying` is how many are
    refused now and wait for their next try.
    """

    passes: int = 0
    reasons: dict[str, int] = msgspec.field(default_factory=dict)
    seconds: float = 0.0
    within: dict[str, int] = msgspec.field(default_factory=dict)
    done: dict[str, int] = msgspec.field(default_factory=dict)
    refused: dict[str, int] = msgspec.field(default_factory=dict)
    retrying: int = 0


class DatapathStatus(msgspec.Struct, frozen=True):
    """The userspace datapath: `c` or `python`, why that one, the offloads in use.

    `counters` and `drops` count from the daemon's start on, in packets unless the name says bytes;
    docs/datapath.md explains them.  `trouble` is why it stopped last, "" if it never did.
    """

    implementation: str
    reason: str
    offloads: tuple[str, ...]
    counters: dict[str, int]
    drops: dict[str, int]
    trouble: str = ""


class FirewallStatus(msgspec.Struct, frozen=True):
    """The work of nft for this node: whether it masquerades, whether it checks the sources of VXLAN packets
    and, if not, for what `reason`.  `drops` are packets by reason, since the table was made last."""

    masquerade: bool
    source_check: bool
    reason: str
    drops: dict[str, int]


class ProblemStatus(msgspec.Struct, frozen=True):
    code: str
    text: str
    remedy: str = ""


class Status(msgspec.Struct, frozen=True):
    """The whole answer.  None stands for what is not known yet."""

    version: str
    at: float
    resync: float
    node: str
    node_id: str
    started: float
    belief: str
    """unclaimed, held, fenced or lost: the value of a Belief."""
    in_sync: bool
    """Whether a whole snapshot of the store was absorbed."""
    revision: int
    network: str | None = None
    lease: LeaseStatus | None = None
    backend: str | None = None
    device: str | None = None
    mtu: int | None = None
    programmed: bool = False
    """Whether all that the node itself needs, firewall rules among it, stood in the kernel at `at`."""
    underlay: UnderlayStatus | None = None
    datapath: DatapathStatus | None = None
    """None where the backend needs none."""
    firewall: FirewallStatus | None = None
    peers: tuple[PeerStatus, ...] = ()
    problems: tuple[ProblemStatus, ...] = ()
    """The worst first."""
    conditions: tuple[Condition, ...] = ()
    """One of each type but those that only peers have."""
    reconciler: ReconcilerStatus = ReconcilerStatus()

    @property
    def peers_in_sync(self) -> int:
        return sum(peer.state is PeerState.IN_SYNC for peer in self.peers)


class StatusAnswer(msgspec.Struct, frozen=True):
    """A status as it was answered at `now`, with the judgement of that instant and its reason.

    Belief, conditions and problems of `status` are those of that instant, the rest is as of `status.at`.
    """

    now: float
    verdict: Verdict
    reason: str
    status: Status
