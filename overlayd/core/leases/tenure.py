"""Tenure: what a claimer tells the rest of the node about this node's subnet.

A claimer (the LeaseKeeper for etcd) decides how to get a subnet and how to keep it.  Everything above it reads the
Tenure alone, and knows nothing of grants, revisions or transactions.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from overlayd.core.leases.lease import Lease


class Waiting(enum.Enum):
    """The event for which a node without a subnet waits, beside time."""

    CONFIG = "the network config can't be used"
    HOST = "this host is not fit for the network"
    SUBNET = "all subnets are taken"
    THAW = "claims are frozen"
    OTHER_SELF = "another incarnation of this node holds a subnet"


class Belief(enum.Enum):
    """A node's knowledge of its own lease."""

    UNCLAIMED = "unclaimed"
    """It has none yet."""
    HELD = "held"
    FENCED = "fenced"
    """It had one and cannot know whether it still does.  Forwarding goes on as it was."""
    LOST = "lost"
    """Another holds it, or the config has no room for it: it must not be used any more."""


@dataclass(frozen=True, slots=True)
class Tenure:
    """`served` is the lease that forwarding goes by; `is_held`: its record is known to stand in the store.

    `until` is when belief ends, in seconds of CLOCK_BOOTTIME.  `lost_to` names the node that holds the subnet that
    was ours, `config_mismatch` ends a sentence on why the config has no room for it.  `waits_for` says why nothing
    is claimed, `complaint` what failed last.
    """

    served: Lease | None = None
    is_held: bool = False
    until: float = 0.0
    lost_to: str = ""
    config_mismatch: str = ""
    waits_for: Waiting | None = None
    complaint: str = ""

    def belief(self, now: float) -> Belief:
        """Judge at `now`, where the belief is used: no timer is trusted to have fired in time."""
        if self.served is None:
            return Belief.LOST if self.is_lost else Belief.UNCLAIMED
        return Belief.HELD if self.is_held and now < self.until else Belief.FENCED

    def decides_as(self, other: Tenure) -> bool:
        """Tell whether a pass decides the same by both: a later `until` and another complaint are for status."""
        return replace(self, until=0.0, complaint="") == replace(other, until=0.0, complaint="")

    @property
    def is_lost(self) -> bool:
        """Whether the subnet that was ours is known to be no longer ours."""
        return bool(self.lost_to or self.config_mismatch)

    @property
    def is_decided(self) -> bool:
        """Whether it is known what became of an earlier life's subnet.

        Right after a start, an address that nobody claims yet may well be ours: nothing may be swept then.
        """
        return self.served is not None or self.is_lost or self.waits_for not in (None, Waiting.THAW, Waiting.HOST)
