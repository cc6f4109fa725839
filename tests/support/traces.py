"""Traces of real daemons on a real etcd, and the judgement whether the model allows every step of them.

A trace has three strands: what each keeper was told and decided, what reached the store and what it answered,
and the store's own history as its watch tells it.  Replaying puts them together: each decision must be the step
function's, each answer must be the abstract store's, and each change in the history must have a cause.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field

import pytest

from overlayd.core.leases.keeper import claimer
from overlayd.core.leases.keeper.state import AskCommit, Command, Event, KeeperState, belief
from overlayd.core.leases.store import (
    Change,
    Changes,
    Committed,
    Deleted,
    Grant,
    Record,
    Refused,
    Snapshot,
    Store,
    StoreError,
    Transaction,
)
from overlayd.core.leases.tenure import Belief
from overlayd.core.network.addresses import Subnet
from support.model.store import AbstractStore, commit, end, grant


class NotAllowed(AssertionError):
    """A step of the trace that the model does not allow."""


@dataclass(frozen=True)
class TraceStep:
    """One call of the step function."""

    before: KeeperState
    event: Event
    now: float
    chance: float
    after: KeeperState
    command: Command | None


@dataclass(frozen=True)
class StoreRequest:
    """A transaction that reached the store, and its answer; None where nobody knows."""

    transaction: Transaction
    outcome: Committed | Refused | None


@dataclass
class KeeperTrace:
    steps: list[TraceStep] = field(default_factory=list)
    requests: list[StoreRequest] = field(default_factory=list)
    grants: list[Grant] = field(default_factory=list)
    history: list[Change] = field(default_factory=list)
    external: list[Transaction] = field(default_factory=list)
    """What the test itself wrote."""


@dataclass
class RecordingStore:
    """A store that writes down what reaches it.  It stands behind the lines that lose messages."""

    inner: Store
    trace: KeeperTrace

    async def snapshot(self) -> Snapshot:
        return await self.inner.snapshot()

    async def grant(self, ttl: int) -> Grant:
        granted = await self.inner.grant(ttl)
        self.trace.grants.append(granted)
        return granted

    async def keepalive(self, lease_id: int) -> int:
        return await self.inner.keepalive(lease_id)

    async def revoke(self, lease_id: int) -> None:
        await self.inner.revoke(lease_id)

    async def commit(self, transaction: Transaction) -> Committed | Refused:
        try:
            outcome = await self.inner.commit(transaction)
        except StoreError:
            self.trace.requests.append(StoreRequest(transaction, None))
            raise
        except BaseException:  # cancelled on its way: the store may have seen it
            self.trace.requests.append(StoreRequest(transaction, None))
            raise
        self.trace.requests.append(StoreRequest(transaction, outcome))
        return outcome

    def watch(self, after: int) -> AbstractAsyncContextManager[AsyncIterator[Changes]]:
        return self.inner.watch(after)


@contextmanager
def recorded_steps(trace: KeeperTrace) -> Iterator[None]:
    """While open, every step of every keeper in this process is written down."""
    take_step = claimer.step

    def step(state: KeeperState, event: Event, now: float, chance: float) -> tuple[KeeperState, Command | None]:
        after, command = take_step(state, event, now, chance)
        trace.steps.append(TraceStep(state, event, now, chance, after, command))
        return after, command

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("overlayd.core.leases.keeper.claimer.step", step)
        yield


async def read_history(store: Store, trace: KeeperTrace) -> None:
    """All that happened in a store that was empty at its first revision."""
    last = (await store.snapshot()).revision
    async with store.watch(1) as watch:
        async for changes in watch:
            trace.history += changes.changes
            if changes.revision >= last:
                return


def replay(trace: KeeperTrace) -> int:
    """Raises NotAllowed at the first step that the model does not allow; the number of steps otherwise."""
    _replay_decisions(trace)
    _replay_store(trace)
    _replay_beliefs(trace)
    return len(trace.steps) + len(trace.requests) + len(trace.history)


def _require(allowed: bool, what: object) -> None:
    if not allowed:
        raise NotAllowed(str(what))


def _replay_decisions(trace: KeeperTrace) -> None:
    lives: dict[tuple[str, str], KeeperState] = {}
    commanded = set(trace.external)
    for step in trace.steps:
        life = (step.before.node_id, step.before.incarnation)
        _require(lives.get(life, step.before) == step.before, f"{life} forgot something before {step.event}")
        decided = claimer.step(step.before, step.event, step.now, step.chance)
        _require(decided == (step.after, step.command), f"{life} decided otherwise about {step.event}")
        lives[life] = step.after
        if isinstance(step.command, AskCommit):
            commanded.add(step.command.transaction)
    for request in trace.requests:
        _require(request.transaction in commanded, f"nobody decided on {request.transaction}")


def _replay_store(trace: KeeperTrace) -> None:
    store = AbstractStore()
    for granted in trace.grants:
        store = grant(store, granted.lease_id, granted.ttl)
    stages = {store.revision: store}
    answered = {
        request.outcome.revision: request.transaction
        for request in trace.requests
        if isinstance(request.outcome, Committed)
    }
    unanswered = [request.transaction for request in trace.requests if request.outcome is None]
    by_revision = itertools.groupby(trace.history, key=lambda change: change.mod_revision)
    for revision, group in by_revision:
        changes = set(group)
        if revision in answered:
            store, outcome = commit(store, answered[revision])
            _require(outcome == Committed(revision), f"revision {revision}: {answered[revision]} was no candidate")
        else:
            store = _unanswered(store, revision, changes, unanswered)
        _require(_agrees(store, changes), f"revision {revision}: the history tells of {changes}")
        stages[revision] = store
    _require(answered.keys() <= stages.keys(), "a commit left no trace in the history")
    for request in trace.requests:
        if isinstance(request.outcome, Refused):
            stage = stages[max(known for known in stages if known <= request.outcome.revision)]
            _, outcome = commit(stage, request.transaction)
            _require(isinstance(outcome, Refused), f"{request.transaction} was refused without a reason")


def _unanswered(
    store: AbstractStore, revision: int, changes: set[Change], unanswered: list[Transaction]
) -> AbstractStore:
    """What nobody was told of: a grant that ended, or a transaction whose answer was lost."""
    gone = [store.find(change.name) for change in changes if isinstance(change, Deleted)]
    grants = {record.lease_id for record in gone if record is not None}
    if len(gone) == len(changes) and len(grants) == 1 and 0 not in grants:
        ended = end(store, grants.pop())
        if _agrees(ended, changes) and ended.revision == revision:
            return ended
    for transaction in unanswered:
        candidate, outcome = commit(store, transaction)
        if outcome == Committed(revision) and _agrees(candidate, changes):
            return candidate
    raise NotAllowed(f"revision {revision}: {changes} has no cause")


def _agrees(store: AbstractStore, changes: set[Change]) -> bool:
    return all(store.find(change.name) == (change if isinstance(change, Record) else None) for change in changes)


@dataclass(frozen=True)
class _Span:
    who: str
    subnet: Subnet
    since: float
    until: float


def _replay_beliefs(trace: KeeperTrace) -> None:
    """The promise, at every instant: from each step to the next the belief is the state's own."""
    spans: list[_Span] = []
    following: dict[tuple[str, str], float] = {}
    for step in reversed(trace.steps):
        state = step.after
        life = (state.node_id, state.incarnation)
        end_of_step = following.get(life, step.now)
        following[life] = step.now
        if state.held is not None and belief(state, step.now) is Belief.HELD:
            spans.append(_Span(life[0], state.held.subnet, step.now, min(end_of_step, state.until)))
    spans.sort(key=lambda span: span.since)
    for place, span in enumerate(spans):
        for later in spans[place + 1 :]:
            if later.since >= span.until:
                break
            _require(
                later.who == span.who or not later.subnet.overlaps(span.subnet),
                f"{span.who} and {later.who} both believe in {span.subnet} at {later.since}",
            )
