"""The nouns of the LeaseKeeper: what it sees, events, commands, phases, and its state.

All of them are frozen and hashable, so that a checker can search the states.
"""

from __future__ import annotations

from dataclasses import dataclass

from overlayd.core.leases.claimer import ClaimRequest
from overlayd.core.leases.lease import Attributes
from overlayd.core.leases.lease_record import Hold, LeaseRecord
from overlayd.core.leases.records import RecordBook
from overlayd.core.leases.store import Committed, Grant, Refused, Transaction
from overlayd.core.leases.tenure import Belief, Tenure, Waiting
from overlayd.core.network.addresses import Subnet
from overlayd.core.network.config import NetworkConfig

TTL_MIN = 30
"""Seconds.  Below this the margin would leave too little time to renew in."""
TTL_DEFAULT = 86_400
"""Seconds: flannel's."""


@dataclass(frozen=True, slots=True)
class StoreView:
    """The config and all leases, as they were together at one revision of the store.

    `taken` are the subnets that some key names, whether or not its value is a lease.  `returns` is how often the
    store is known to have gone back in time: revisions before and after that can't be compared.  `damaged` are
    records that can't be read, with empty attributes.  While it is `frozen`, nothing may be claimed.  No new
    subnet may be while the config in the store is another than the one given here (`config_is_current`), as that
    one is not sound or not in force yet, nor while this host is not fit for it (`may_claim`).
    """

    revision: int
    config_revision: int
    config: NetworkConfig
    leases: tuple[LeaseRecord, ...]
    taken: tuple[Subnet, ...]
    holds: tuple[Hold, ...] = ()
    returns: int = 0
    frozen: bool = False
    damaged: tuple[LeaseRecord, ...] = ()
    config_is_current: bool = True
    may_claim: bool = True


def to_view(book: RecordBook, request: ClaimRequest) -> StoreView:
    """Compose what the keeper decides on."""
    return StoreView(
        book.revision,
        request.stored.version,
        request.config,
        book.leases,
        book.taken,
        book.holds,
        book.returns,
        book.is_frozen,
        book.damaged,
        config_is_current=book.config == request.stored,
        may_claim=request.may_claim,
    )


@dataclass(frozen=True, slots=True)
class AskGrant:
    ttl: int


@dataclass(frozen=True, slots=True)
class AskKeepalive:
    lease_id: int


@dataclass(frozen=True, slots=True)
class AskCommit:
    """`result` is the lease that is ours if the transaction commits, None for a release."""

    transaction: Transaction
    result: LeaseRecord | None


@dataclass(frozen=True, slots=True)
class RefreshView:
    """Read the store afresh: what was seen is known to be too old."""


Command = AskGrant | AskKeepalive | AskCommit | RefreshView


@dataclass(frozen=True, slots=True)
class StoreViewed:
    """The store was seen; also what this node now wants its record to say."""

    store_view: StoreView
    wanted: Attributes


@dataclass(frozen=True, slots=True)
class Granted:
    grant: Grant
    sent_at: float


@dataclass(frozen=True, slots=True)
class KeptAlive:
    """`ttl` 0: the grant no longer exists."""

    ttl: int
    sent_at: float


@dataclass(frozen=True, slots=True)
class CommitResult:
    """The outcome of a commit."""

    outcome: Committed | Refused


@dataclass(frozen=True, slots=True)
class CommandFailed:
    """The command's outcome is unknown; `reason` is for the operator."""

    reason: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Event = StoreViewed | Granted | KeptAlive | CommitResult | CommandFailed | Tick


@dataclass(frozen=True, slots=True)
class Unclaimed:
    """This life has held no subnet yet."""


@dataclass(frozen=True, slots=True)
class Held:
    """This is the record that we believe to be ours, as long as belief in the grant lasts."""

    record: LeaseRecord


@dataclass(frozen=True, slots=True)
class Missing:
    """Our record is gone from the store, and no other is seen in its place.

    It is served until it is written again, or another's is seen there.
    """

    record: LeaseRecord


@dataclass(frozen=True, slots=True)
class Lost:
    """The subnet is no longer ours: it went `to` another, or the config has no room for it (`config_mismatch`)."""

    to: str = ""
    config_mismatch: str = ""


Phase = Unclaimed | Held | Missing | Lost


@dataclass(frozen=True, slots=True)
class KeeperState:
    """All that the keeper knows.

    `incarnation` is the name of this life, `has_held` whether it has ever held a subnet.  `until` is when belief
    in the grant ends.  `need_revision` is the least revision that a view must have to be decided on.
    `commit_outcome_unknown`: the last write may or may not have happened, so look before anything else is decided.
    `waits_for` says why nothing is claimed.
    """

    node_id: str
    incarnation: str
    ttl: int
    phase: Phase = Unclaimed()
    has_held: bool = False
    previous: Subnet | None = None
    wanted: Attributes | None = None
    store_view: StoreView | None = None
    lease_id: int = 0
    until: float = 0.0
    renew_at: float = 0.0
    pending: Command | None = None
    need_revision: int = 0
    commit_outcome_unknown: bool = False
    failures: int = 0
    retry_at: float = 0.0
    complaint: str = ""
    waits_for: Waiting | None = None

    @property
    def held(self) -> LeaseRecord | None:
        """The record that this node believes to be its own."""
        return self.phase.record if isinstance(self.phase, Held) else None

    @property
    def served(self) -> LeaseRecord | None:
        """The record that forwarding goes by."""
        return self.phase.record if isinstance(self.phase, Held | Missing) else None

    @property
    def tenure(self) -> Tenure:
        """What this state says to the rest of the node."""
        lost = self.phase if isinstance(self.phase, Lost) else Lost()
        return Tenure(
            self.served.lease if self.served is not None else None,
            self.held is not None,
            self.until,
            lost.to,
            lost.config_mismatch,
            self.waits_for,
            self.complaint,
        )


def belief(state: KeeperState, now: float) -> Belief:
    """Judge at `now`, where the belief is used: no timer is trusted to have fired in time."""
    return state.tenure.belief(now)
