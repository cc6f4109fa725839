"""LeaseKeeper: how a node gets its subnet and keeps it, as one pure step.

The story of a lease: ask the store for a lease of its own (a *grant*), see the config and all subnets at one
revision, choose a free subnet, and write its key in a transaction that compares what was seen.  From then on
the grant is kept alive, and the record is rewritten when this node's attributes change, never blindly: every
write compares the create revision and the grant of the key that it believes to be its own.

A reservation is a key on no grant, so it never expires and can't show whether its node lives.  Its node keeps a
second key beside it, the *hold*, on its grant; belief follows that one.

The belief ends before the store can end the grant: it counts from the moment *before* the grant or keepalive
was sent, and stops a margin short of the TTL that the answer promised.  Once it has ended, a keepalive alone does
not bring it back, as the store may have been restored from a backup meanwhile; writing the record anew does.

One life of a daemon is an *incarnation*.  At its start it takes over what an earlier life of this node left.
Once it has held a subnet, a record under its own id that names another incarnation is somebody else's: that
conflict is named, and not fought.

`step` takes one event and answers with the new state and at most one command; no second command is given
until the outcome of the first has come back as an event.  Time (seconds of CLOCK_BOOTTIME) and chance (a
random number) are arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from overlayd.core.leases.claimer import ClaimRequest
from overlayd.core.leases.codec import encode_attributes, encode_hold, format_hold_name, format_subnet_name
from overlayd.core.leases.lease import Attributes
from overlayd.core.leases.lease_record import Hold, LeaseRecord
from overlayd.core.leases.records import RecordBook
from overlayd.core.leases.store import (
    CONFIG,
    FROZEN,
    Committed,
    Delete,
    Field,
    Grant,
    Guard,
    Put,
    Refused,
    Transaction,
)
from overlayd.core.leases.subnets import choose_subnet, find_config_mismatch
from overlayd.core.leases.tenure import Belief, Tenure, Waiting
from overlayd.core.network.addresses import Subnet
from overlayd.core.network.config import NetworkConfig

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
class KeeperState:
    """All that the keeper knows.

    `incarnation` is the name of this life, `has_held` whether it has ever held a subnet.  `held` is the record
    that this node believes to be its own; `last` is the one it served until it was gone from the store, still
    served while no one else is seen to hold it.  `until` is when belief in the grant ends.  `need_revision` is
    the least revision that a sighting must have to be decided on.  `waits_for` says why nothing is claimed.
    """

    node_id: str
    incarnation: str
    ttl: int
    has_held: bool = False
    previous: Subnet | None = None
    wanted: Attributes | None = None
    store_view: StoreView | None = None
    lease_id: int = 0
    until: float = 0.0
    renew_at: float = 0.0
    held: LeaseRecord | None = None
    last: LeaseRecord | None = None
    lost_to: str = ""
    """Who holds our subnet now."""
    config_mismatch: str = ""
    """Why the config has no room for it any more."""
    pending: Command | None = None
    need_revision: int = 0
    commit_outcome_unknown: bool = False
    """The last write may or may not have happened: look before anything else is decided."""
    failures: int = 0
    retry_at: float = 0.0
    complaint: str = ""
    waits_for: Waiting | None = None

    @property
    def served(self) -> LeaseRecord | None:
        """The lease that forwarding goes by."""
        return self.held or self.last

    @property
    def tenure(self) -> Tenure:
        """What this state says to the rest of the node."""
        return Tenure(
            self.served.lease if self.served is not None else None,
            self.held is not None,
            self.until,
            self.lost_to,
            self.config_mismatch,
            self.waits_for,
            self.complaint,
        )


def belief(state: KeeperState, now: float) -> Belief:
    """To be asked where it is used: no timer is believed to have fired in time."""
    return state.tenure.belief(now)


def wake_at(state: KeeperState, stepped_at: float) -> float | None:
    """When the next Tick is due, None if only an event can bring anything new.  What was due at `stepped_at`,
    the time of the last step, has had its chance then."""
    times = [state.retry_at] if state.failures else []
    if state.held is not None:
        times.append(state.until)
    if state.lease_id:
        times.append(max(state.renew_at, state.retry_at) if state.failures else state.renew_at)
    return min((time for time in times if time > stepped_at), default=None)


def step(state: KeeperState, event: Event, now: float, chance: float) -> tuple[KeeperState, Command | None]:
    """Absorb one event, then decide.  0 ≤ `chance` < 1 is a random number."""
    state = _absorb(state, event, now, chance)
    command = _decide(state, now, chance)
    if isinstance(command, Waiting):
        return replace(state, waits_for=command), None
    waits_for = state.waits_for if state.held is None and not isinstance(command, AskCommit) else None
    return replace(state, waits_for=waits_for, pending=command or state.pending), command


def _absorb(state: KeeperState, event: Event, now: float, chance: float) -> KeeperState:
    asked = state.pending
    if isinstance(event, Granted | KeptAlive | CommitResult | CommandFailed):
        state = replace(state, pending=None)
    match event:
        case StoreViewed(store_view=store_view, wanted=wanted):
            if isinstance(asked, RefreshView):
                state = replace(state, pending=None, commit_outcome_unknown=False, need_revision=0)
            if state.store_view is not None and store_view.returns != state.store_view.returns:
                state = _forget_revisions(state)
            return _recognise(replace(state, store_view=store_view, wanted=wanted))
        case Granted(grant=grant, sent_at=sent_at):
            return _renewed(replace(state, lease_id=grant.lease_id), grant.ttl, sent_at)
        case KeptAlive(ttl=0):
            return _gone(replace(state, lease_id=0, failures=0, commit_outcome_unknown=True))
        case KeptAlive(ttl=ttl, sent_at=sent_at):
            lapsed = sent_at >= state.until
            return _renewed(_gone(state) if lapsed else state, ttl, sent_at)
        case CommitResult(outcome=Committed(revision=revision)):
            assert isinstance(asked, AskCommit)
            state = replace(state, failures=0, complaint="", need_revision=revision)
            return state if asked.result is None else _hold(state, asked.result, revision)
        case CommitResult(outcome=Refused(revision=revision)):
            state = replace(state, need_revision=max(state.need_revision, revision), commit_outcome_unknown=True)
            return _delayed(state, now, chance)
        case CommandFailed(reason=reason):
            commit_outcome_unknown = state.commit_outcome_unknown or isinstance(asked, AskCommit)
            return _delayed(
                replace(state, complaint=reason, commit_outcome_unknown=commit_outcome_unknown), now, chance
            )
    return state


def _delayed(state: KeeperState, now: float, chance: float) -> KeeperState:
    """After a write that came to nothing; a read that works is no reason to hurry."""
    pause = min(RETRY_FIRST * 2.0**state.failures, RETRY_LAST) * (0.5 + chance / 2)
    return replace(state, failures=min(state.failures + 1, 16), retry_at=now + pause)


def _renewed(state: KeeperState, ttl: int, sent_at: float) -> KeeperState:
    return replace(
        state,
        until=sent_at + ttl - margin(ttl),
        renew_at=sent_at + min(ttl / 6, RENEW_EVERY_AT_MOST),
        failures=0,
        complaint="",
    )


def _forget_revisions(state: KeeperState) -> KeeperState:
    """The store went back: what it says now is news, however low its revision.  What it holds of this node may
    be an earlier life's, so it is taken over as at the start of a life."""
    held = replace(state.held, mod_revision=0) if state.held is not None else None
    last = replace(state.last, mod_revision=0) if state.last is not None else None
    return replace(state, held=held, last=last, need_revision=0, has_held=False)


def _hold(state: KeeperState, result: LeaseRecord, revision: int) -> KeeperState:
    created = result.create_revision or revision
    held = replace(result, create_revision=created, mod_revision=revision)
    return replace(
        state, held=held, last=None, previous=held.subnet, lost_to="", config_mismatch="", has_held=True
    )


def _gone(state: KeeperState) -> KeeperState:
    """Our record is no longer there, and no one else's is in its place: serve on, and claim it again, once it
    is known whether the grant is still alive."""
    if state.held is None:
        return state
    return replace(state, held=None, last=state.held, renew_at=0.0)


def _lose(state: KeeperState, to: str) -> KeeperState:
    return replace(state, held=None, last=None, lost_to=to)


def _recognise(state: KeeperState) -> KeeperState:
    """Compare what we believe with what was seen, if what was seen is not older."""
    served, store_view = state.served, state.store_view
    if served is None or store_view is None or store_view.revision < served.mod_revision:
        return state
    if (reason := find_config_mismatch(store_view.config, served.subnet)) is not None:
        return replace(state, held=None, last=None, config_mismatch=reason)
    found: LeaseRecord | None = None
    for lease in store_view.leases:
        if lease.subnet == served.subnet:
            found = lease
        elif lease.create_revision < served.create_revision and lease.subnet.overlaps(served.subnet):
            return _lose(state, lease.attributes.identity)
    if found is None:
        found = next((lease for lease in store_view.damaged if lease.subnet == served.subnet), None)
        if found is None or not _is_overwritten(state, found):
            return _gone(state)
        return replace(state, held=found)  # nobody else holds it: it will be written again
    if not _is_ours(state, found):
        same = found.attributes.node_id == state.node_id
        return _lose(state, "another incarnation of this node" if same else found.attributes.identity)
    if state.held is not None and _is_held(state, found, store_view):
        return replace(state, held=found)
    return _gone(state)


def _is_held(state: KeeperState, lease: LeaseRecord, store_view: StoreView) -> bool:
    """Whether this record, ours by its name, is the one that we hold: by our grant, or by a hold on our grant."""
    if state.held is None or lease.create_revision != state.held.create_revision:
        return False
    if not lease.is_reservation:
        return lease.lease_id == state.lease_id
    hold = _find_hold(store_view, lease.subnet)
    return hold is not None and hold.lease_id == state.lease_id


def _is_overwritten(state: KeeperState, damaged: LeaseRecord) -> bool:
    """Tell whether this is the record that we hold, with a value put over it by hand: a plain put takes the key
    off our grant as well, and nobody else can have created it meanwhile."""
    held = state.held
    if held is None or damaged.create_revision != held.create_revision:
        return False
    return damaged.lease_id in (0, state.lease_id)


def _find_hold(store_view: StoreView, subnet: Subnet) -> Hold | None:
    return next((hold for hold in store_view.holds if hold.subnet == subnet), None)


def _is_ours(state: KeeperState, record: LeaseRecord | Hold) -> bool:
    """This life's record.  Before it has held anything, also what an earlier life of this node left, or what
    flannel left on this node, which is known by its public address alone."""
    who = record.attributes if isinstance(record, LeaseRecord) else record
    if who.node_id:
        known = not state.has_held or who.incarnation in ("", state.incarnation)  # an operator names no life
        return who.node_id == state.node_id and known
    if state.has_held or state.wanted is None or not isinstance(who, Attributes):
        return False
    return bool(who.public_ips) and who.public_ips == state.wanted.public_ips


def _decide(state: KeeperState, now: float, chance: float) -> Command | Waiting | None:
    store_view, wanted = state.store_view, state.wanted
    if state.pending is not None or store_view is None or wanted is None:
        return None
    if state.failures and now < state.retry_at:
        return None
    if state.lease_id and now >= state.renew_at:
        return AskKeepalive(state.lease_id)
    if state.commit_outcome_unknown or store_view.revision < state.need_revision:
        return RefreshView()

    own = [lease for lease in store_view.leases if _is_ours(state, lease)]
    own += [lease for lease in store_view.damaged if lease.lease_id and lease.lease_id == state.lease_id]
    own.sort(key=lambda lease: lease.create_revision)
    usable = [lease for lease in own if _may_be_used(state, store_view, lease)]
    keep = state.held or next(iter(usable), None)
    is_settled = keep is not None or store_view.may_claim  # else what stands may fit once the host does
    if is_settled and (leftover := _find_leftover(state, store_view, own, keep)) is not None:
        return AskCommit(leftover, None)
    if (held := state.held) is not None:
        return None if held.attributes == wanted else _keep(state, store_view, held, wanted)
    if state.has_held and any(_is_other_self(state, lease) for lease in store_view.leases):
        return Waiting.OTHER_SELF
    if keep is None and state.last is None and not store_view.may_claim:
        return Waiting.HOST
    if not state.lease_id:
        return AskGrant(state.ttl)
    if store_view.frozen:
        return Waiting.THAW
    if keep is not None:
        return _keep(state, store_view, keep, wanted)
    if not store_view.config_is_current:
        return Waiting.CONFIG
    taken = [*store_view.taken, *(hold.subnet for hold in store_view.holds if not _is_ours(state, hold))]
    subnet = choose_subnet(store_view.config, taken, state.previous, chance)
    if not store_view.may_claim and (state.last is None or subnet != state.last.subnet):
        return Waiting.HOST  # what is in use may be claimed again, another subnet not
    return _claim(state, store_view, subnet, wanted) if subnet is not None else Waiting.SUBNET


def _find_leftover(
    state: KeeperState, store_view: StoreView, own: Sequence[LeaseRecord], keep: LeaseRecord | None
) -> Transaction | None:
    """What removes one record or hold of ours beside the one that we keep."""
    for lease in own:
        # never flannel's: by the address alone it may be another host's, behind the same NAT
        known = lease.attributes.node_id or lease.lease_id == state.lease_id
        if known and not lease.is_reservation and (keep is None or lease.subnet != keep.subnet):
            return release(lease)
    for hold in store_view.holds:
        needless = keep is not None and (hold.subnet != keep.subnet or not keep.is_reservation)
        if needless and _is_ours(state, hold):
            return Transaction(_hold_guards(hold), (Delete(format_hold_name(hold.subnet)),))
    return None


def _is_other_self(state: KeeperState, lease: LeaseRecord) -> bool:
    return lease.attributes.node_id == state.node_id and not _is_ours(state, lease)


def _may_be_used(state: KeeperState, store_view: StoreView, lease: LeaseRecord) -> bool:
    """Whether a record of ours fits the config, loses to no older record, and is held by no one else."""
    older = (
        other
        for other in store_view.leases
        if other.create_revision < lease.create_revision
        and other.subnet.overlaps(lease.subnet)
        and not _is_ours(state, other)
    )
    hold = _find_hold(store_view, lease.subnet)
    free = hold is None or _is_ours(state, hold)
    return free and find_config_mismatch(store_view.config, lease.subnet) is None and next(older, None) is None


def _claim(state: KeeperState, store_view: StoreView, subnet: Subnet, wanted: Attributes) -> AskCommit:
    """A new key.  Under one config all subnets have one length, so what could collide has the same key; what
    has another length was there before the config, and so was seen."""
    name = format_subnet_name(subnet)
    guards = [
        Guard(name, Field.CREATE_REVISION, 0),
        Guard(CONFIG, Field.MOD_REVISION, store_view.config_revision),
        Guard(FROZEN, Field.CREATE_REVISION, 0),
    ]
    actions: list[Put | Delete] = [Put(name, encode_attributes(wanted), state.lease_id)]
    if (hold := _find_hold(store_view, subnet)) is None:
        guards.append(Guard(format_hold_name(subnet), Field.CREATE_REVISION, 0))
    else:  # our own, of a reservation that is gone
        guards += _hold_guards(hold)
        actions.append(Delete(format_hold_name(subnet)))
    return AskCommit(Transaction(tuple(guards), tuple(actions)), LeaseRecord(subnet, wanted, 0, 0, state.lease_id))


def _keep(state: KeeperState, store_view: StoreView, lease: LeaseRecord, wanted: Attributes) -> AskCommit:
    """Write an existing record of ours anew: with what we want it to say, and on our grant, or, for a
    reservation, with a hold on our grant."""
    name, guards = format_subnet_name(lease.subnet), guards_of(lease)
    if state.held is None:
        guards += (Guard(FROZEN, Field.CREATE_REVISION, 0),)
    hold = _find_hold(store_view, lease.subnet)
    overwritten = lease in store_view.damaged and hold is None  # a plain put took it off our grant
    if not lease.is_reservation or overwritten:
        put = Put(name, encode_attributes(wanted), state.lease_id)
        result = replace(lease, attributes=wanted, lease_id=state.lease_id)
        return AskCommit(Transaction(guards, (put,)), result)
    hold_name = format_hold_name(lease.subnet)
    absent = (Guard(hold_name, Field.CREATE_REVISION, 0),)
    actions = (Put(name, encode_attributes(wanted), 0), Put(hold_name, encode_hold(wanted), state.lease_id))
    transaction = Transaction(guards + (absent if hold is None else _hold_guards(hold)), actions)
    return AskCommit(transaction, replace(lease, attributes=wanted))


def guards_of(lease: LeaseRecord) -> tuple[Guard, ...]:
    """What must hold of a key for it to be the very record that we saw."""
    name = format_subnet_name(lease.subnet)
    return (
        Guard(name, Field.CREATE_REVISION, lease.create_revision),
        Guard(name, Field.LEASE_ID, lease.lease_id),
    )


def _hold_guards(hold: Hold) -> tuple[Guard, ...]:
    name = format_hold_name(hold.subnet)
    return (
        Guard(name, Field.CREATE_REVISION, hold.create_revision),
        Guard(name, Field.LEASE_ID, hold.lease_id),
    )


def release(lease: LeaseRecord) -> Transaction:
    """Deletes the key of this very lease; refused if it has been written since, by ourselves or another: a
    release that is under way for long must not hit what was adopted meanwhile."""
    name = format_subnet_name(lease.subnet)
    guards = (*guards_of(lease), Guard(name, Field.MOD_REVISION, lease.mod_revision))
    return Transaction(guards, (Delete(name),))


@dataclass(frozen=True, slots=True)
class EtcdClaimer:
    """The LeaseKeeper as a Claimer: see overlayd.core.leases.claimer."""

    state: KeeperState

    @property
    def tenure(self) -> Tenure:
        return self.state.tenure

    def step(self, event: Event, now: float, chance: float) -> tuple[EtcdClaimer, Command | None]:
        state, command = step(self.state, event, now, chance)
        return EtcdClaimer(state), command

    def wake_at(self, stepped_at: float) -> float | None:
        return wake_at(self.state, stepped_at)
