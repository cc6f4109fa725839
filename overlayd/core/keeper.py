"""LeaseKeeper: how a node gets its subnet and keeps it, as one pure step.

The story of a lease: ask the store for a lease of its own (a *grant*), see the config and all subnets at one
revision, choose a free subnet, and write its key in a transaction that compares what was seen.  From then on
the grant is kept alive, and the record is rewritten when this node's attributes change, never blindly: every
write compares the create revision and the grant of the key that it believes to be its own.

The belief ends before the store can end the lease: it counts from the moment *before* the grant or keepalive
was sent, and stops a margin short of the TTL that the answer promised.

`step` takes one event and answers with the new state and at most one command; no second command is given
until the outcome of the first has come back as an event.  Time (seconds of CLOCK_BOOTTIME) and chance (a
random number) are arguments.
"""

from __future__ import annotations

import enum
from collections.abc import Collection
from dataclasses import dataclass, replace

from overlayd.core.config import NetworkConfig
from overlayd.core.model import Attributes, Lease, Subnet
from overlayd.core.records import encode_attributes, format_subnet_name
from overlayd.core.store import (
    CONFIG,
    Committed,
    Delete,
    Field,
    Grant,
    Guard,
    Put,
    Refused,
    Transaction,
)
from overlayd.core.subnets import choose_subnet, find_misfit

TTL_MIN = 30
"""Seconds.  Below this the margin would leave too little time to renew in."""
TTL_DEFAULT = 86_400
"""Seconds: flannel's."""
RENEW_EVERY_AT_MOST = 60.0
RETRY_FIRST, RETRY_LAST = 0.5, 15.0
"""Seconds before the first retry, and what the doubling ends at."""


def margin(ttl: float) -> float:
    """Seconds that belief ends before the TTL does: 2 % for clocks of different rates, 10 s at least."""
    return max(0.02 * ttl, 10.0)


class Belief(enum.Enum):
    """What this node believes of its lease."""

    UNCLAIMED = "unclaimed"
    """It has none yet."""
    HELD = "held"
    FENCED = "fenced"
    """It had one and cannot know whether it still does.  Forwarding goes on as it was."""
    LOST = "lost"
    """Another holds it, or the config has no room for it: it must not be used any more."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """The config and all leases, as they were together at one revision of the store.  `taken` are the subnets
    that some key names, whether or not its value is a lease."""

    revision: int
    config_revision: int
    config: NetworkConfig
    leases: tuple[Lease, ...]
    taken: tuple[Subnet, ...]


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
    result: Lease | None


@dataclass(frozen=True, slots=True)
class AskSighting:
    """Read the store afresh: what was seen is known to be too old."""


Command = AskGrant | AskKeepalive | AskCommit | AskSighting


@dataclass(frozen=True, slots=True)
class Sighted:
    """The store was seen; also what this node now wants its record to say."""

    sighting: Sighting
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
class Decided:
    """The outcome of a commit."""

    outcome: Committed | Refused


@dataclass(frozen=True, slots=True)
class Failed:
    """The command's outcome is unknown; `reason` is for the operator."""

    reason: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Event = Sighted | Granted | KeptAlive | Decided | Failed | Tick


@dataclass(frozen=True, slots=True)
class KeeperState:
    """All that the keeper knows.

    `held` is the record that this node believes to be its own; `last` is the one it served until it was gone
    from the store, still served while no one else is seen to hold it.  `until` is when belief in the grant
    ends.  `need_revision` is the least revision that a sighting must have to be decided on.
    """

    node_id: str
    ttl: int
    previous: Subnet | None = None
    wanted: Attributes | None = None
    sighting: Sighting | None = None
    lease_id: int = 0
    until: float = 0.0
    renew_at: float = 0.0
    held: Lease | None = None
    last: Lease | None = None
    lost_to: str = ""
    pending: Command | None = None
    need_revision: int = 0
    doubtful: bool = False
    """The last write may or may not have happened: look before anything else is decided."""
    failures: int = 0
    retry_at: float = 0.0
    complaint: str = ""
    exhausted: bool = False

    @property
    def served(self) -> Lease | None:
        """The lease that forwarding goes by."""
        return self.held or self.last


def belief(state: KeeperState, now: float) -> Belief:
    """To be asked where it is used: no timer is believed to have fired in time."""
    if state.held is None:
        if state.last is not None:
            return Belief.FENCED
        return Belief.LOST if state.lost_to else Belief.UNCLAIMED
    if state.held.is_reservation or now < state.until:
        return Belief.HELD
    return Belief.FENCED


def wake_at(state: KeeperState, stepped_at: float) -> float | None:
    """When the next Tick is due, None if only an event can bring anything new.  What was due at `stepped_at`,
    the time of the last step, has had its chance then."""
    times = [state.retry_at] if state.failures else []
    if state.lease_id:
        times.append(max(state.renew_at, state.retry_at) if state.failures else state.renew_at)
    return min((time for time in times if time > stepped_at), default=None)


def step(state: KeeperState, event: Event, now: float, chance: float) -> tuple[KeeperState, Command | None]:
    """Absorb one event, then decide.  0 ≤ `chance` < 1 is a random number."""
    state = _absorb(state, event, now, chance)
    command = _decide(state, now, chance)
    if isinstance(command, _Exhausted):
        return replace(state, exhausted=True), None
    state = replace(state, exhausted=False, pending=command or state.pending)
    return state, command


def _absorb(state: KeeperState, event: Event, now: float, chance: float) -> KeeperState:
    asked = state.pending
    if isinstance(event, Granted | KeptAlive | Decided | Failed):
        state = replace(state, pending=None)
    match event:
        case Sighted(sighting=sighting, wanted=wanted):
            if isinstance(asked, AskSighting):
                state = replace(state, pending=None, doubtful=False, need_revision=0, failures=0, complaint="")
            return _recognise(replace(state, sighting=sighting, wanted=wanted))
        case Granted(grant=grant, sent_at=sent_at):
            return _renewed(replace(state, lease_id=grant.lease_id), grant.ttl, sent_at)
        case KeptAlive(ttl=0):
            return _gone(replace(state, lease_id=0, failures=0, doubtful=True))
        case KeptAlive(ttl=ttl, sent_at=sent_at):
            return _renewed(state, ttl, sent_at)
        case Decided(outcome=Committed(revision=revision)):
            assert isinstance(asked, AskCommit)
            state = replace(state, failures=0, complaint="", need_revision=revision)
            return state if asked.result is None else _hold(state, asked.result, revision)
        case Decided(outcome=Refused(revision=revision)):
            return replace(state, need_revision=max(state.need_revision, revision), doubtful=True)
        case Failed(reason=reason):
            pause = min(RETRY_FIRST * 2.0**state.failures, RETRY_LAST) * (0.5 + chance / 2)
            return replace(
                state,
                failures=state.failures + 1,
                retry_at=now + pause,
                complaint=reason,
                doubtful=state.doubtful or isinstance(asked, AskCommit),
            )
    return state


def _renewed(state: KeeperState, ttl: int, sent_at: float) -> KeeperState:
    return replace(
        state,
        until=sent_at + ttl - margin(ttl),
        renew_at=sent_at + min(ttl / 6, RENEW_EVERY_AT_MOST),
        failures=0,
        complaint="",
    )


def _hold(state: KeeperState, result: Lease, revision: int) -> KeeperState:
    created = result.create_revision or revision
    held = replace(result, create_revision=created, mod_revision=revision)
    return replace(state, held=held, last=None, previous=held.subnet, lost_to="")


def _gone(state: KeeperState) -> KeeperState:
    """Our record is no longer there, and no one else's is in its place: serve on, and claim it again, once it
    is known whether the grant is still alive."""
    if state.held is None:
        return state
    return replace(state, held=None, last=state.held, renew_at=0.0)


def _recognise(state: KeeperState) -> KeeperState:
    """Compare what we believe with what was seen, if what was seen is not older."""
    served, sighting = state.served, state.sighting
    if served is None or sighting is None or sighting.revision < served.mod_revision:
        return state
    for lease in sighting.leases:
        if lease.subnet == served.subnet and _is_ours(state, lease):
            ours = lease.create_revision == served.create_revision and lease.lease_id == state.lease_id
            kept = state.held is not None and (ours or lease.is_reservation)
            state = replace(state, held=lease) if kept else _gone(state)
        elif lease.subnet.overlaps(served.subnet) and (
            lease.create_revision < served.create_revision or lease.subnet == served.subnet
        ):
            return replace(state, held=None, last=None, lost_to=lease.attributes.identity)
    if all(lease.subnet != served.subnet for lease in sighting.leases):
        state = _gone(state)
    if (reason := find_misfit(sighting.config, served.subnet)) is not None:
        return replace(state, held=None, last=None, lost_to=f"the network config: {reason}")
    return state


def _is_ours(state: KeeperState, lease: Lease) -> bool:
    """Our own record, or one that flannel left on this node, known by its public address alone."""
    theirs, wanted = lease.attributes, state.wanted
    if theirs.node_id:
        return theirs.node_id == state.node_id
    return wanted is not None and bool(theirs.public_ips) and theirs.public_ips == wanted.public_ips


class _Exhausted:
    """There is no free subnet."""


def _decide(state: KeeperState, now: float, chance: float) -> Command | _Exhausted | None:
    sighting, wanted = state.sighting, state.wanted
    if state.pending is not None or sighting is None or wanted is None:
        return None
    if state.failures and now < state.retry_at:
        return None
    if state.lease_id and now >= state.renew_at:
        return AskKeepalive(state.lease_id)
    if state.doubtful or sighting.revision < state.need_revision:
        return AskSighting()

    own = sorted(
        (lease for lease in sighting.leases if _is_ours(state, lease)), key=lambda lease: lease.create_revision
    )
    usable = [lease for lease in own if _may_be_used(sighting, lease, own)]
    keep = state.held or next(iter(usable), None)
    for lease in own:
        # never flannel's: by the address alone it may be another host's, behind the same NAT
        if lease.attributes.node_id and (keep is None or lease.subnet != keep.subnet):
            return AskCommit(release(lease), None)
    if (held := state.held) is not None:
        return None if held.attributes == wanted else _rewrite(held, wanted, held.lease_id)
    if not state.lease_id:
        return AskGrant(state.ttl)
    if keep is not None:
        return _rewrite(keep, wanted, 0 if keep.is_reservation else state.lease_id)
    subnet = choose_subnet(sighting.config, sighting.taken, state.previous, chance)
    return _claim(sighting, subnet, wanted, state.lease_id) if subnet is not None else _Exhausted()


def _may_be_used(sighting: Sighting, lease: Lease, own: Collection[Lease]) -> bool:
    """Whether a record of ours fits the config and loses to no older record of another."""
    older = (
        other
        for other in sighting.leases
        if other not in own
        and other.subnet.overlaps(lease.subnet)
        and other.create_revision < lease.create_revision
    )
    return find_misfit(sighting.config, lease.subnet) is None and next(older, None) is None


def _claim(sighting: Sighting, subnet: Subnet, wanted: Attributes, lease_id: int) -> AskCommit:
    name = format_subnet_name(subnet)
    guards = (
        Guard(name, Field.CREATE_REVISION, 0),
        Guard(CONFIG, Field.MOD_REVISION, sighting.config_revision),
    )
    put = Put(name, encode_attributes(wanted), lease_id)
    return AskCommit(Transaction(guards, (put,)), Lease(subnet, wanted, 0, 0, lease_id))


def _guards(lease: Lease) -> tuple[Guard, ...]:
    """What must hold of a key for it to be the very record that we saw."""
    name = format_subnet_name(lease.subnet)
    return (
        Guard(name, Field.CREATE_REVISION, lease.create_revision),
        Guard(name, Field.LEASE_ID, lease.lease_id),
    )


def _rewrite(lease: Lease, wanted: Attributes, lease_id: int) -> AskCommit:
    put = Put(format_subnet_name(lease.subnet), encode_attributes(wanted), lease_id)
    return AskCommit(Transaction(_guards(lease), (put,)), replace(lease, attributes=wanted, lease_id=lease_id))


def release(lease: Lease) -> Transaction:
    """Deletes the key of this very lease; refused if it has become another's meanwhile."""
    return Transaction(_guards(lease), (Delete(format_subnet_name(lease.subnet)),))
