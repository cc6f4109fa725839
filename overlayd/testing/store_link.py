"""The link between a node and the store, with the faults of a network.

A request is a message of its own: once sent it may arrive, late or twice, whether or not its sender still waits
for the answer, or still runs.  A lost request and a lost answer look the same: no answer in time.
"""

from __future__ import annotations

import enum
import random
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

import trio

from overlayd.core.leases.store import (
    Changes,
    Committed,
    Delete,
    Grant,
    Put,
    Refused,
    Snapshot,
    Store,
    StoreError,
    Transaction,
)
from overlayd.testing.trace import Trace

T = TypeVar("T")

TIMEOUT = 5.0
"""Seconds after which a client stops waiting for an answer, as overlayd.store.etcd does."""
SILENCE = 10.0
"""Seconds without a message after which a client takes its watch for dead."""
REFUSAL = 0.01
"""Seconds until a refusal arrives."""


class Cut(enum.Enum):
    NONE = "whole"
    REFUSED = "refused"
    """Connections are refused at once: no process listens at the other end."""
    SILENT = "silent"
    """Every message is lost."""


@dataclass(frozen=True, slots=True)
class LinkConditions:
    """The probabilities that a request or an answer is lost, and that a request arrives twice.

    `delay` is the longest that a message travels, in seconds.
    """

    lose: float = 0.0
    repeat: float = 0.0
    delay: float = 0.02


class StoreLink:
    """The Store as one node reaches it.

    Messages travel in the nursery `network`, which outlives the daemon.  `awake` returns once the node's process
    is not stopped: a stopped one receives nothing.  `asked` is called for each request sent.
    """

    def __init__(
        self,
        name: str,
        store: Store,
        network: trio.Nursery,
        chance: random.Random,
        trace: Trace,
        awake: Callable[[], Awaitable[None]],
        asked: Callable[[], None],
    ) -> None:
        self.conditions = LinkConditions()
        self.cut = Cut.NONE
        self.cut_at = 0.0
        self._name = name
        self._store = store
        self._network = network
        self._chance = chance
        self._trace = trace
        self._awake = awake
        self._asked = asked
        self._feeds: list[_Feed] = []
        self._cuts = 0
        self._whole = trio.Event()
        self._whole.set()

    @property
    def is_sound(self) -> bool:
        return self.cut is Cut.NONE and self.conditions == LinkConditions()

    # --- what goes wrong

    def sever(self, how: Cut) -> None:
        self.cut = how
        self.cut_at = trio.current_time()
        self._cuts += 1
        if self._whole.is_set():
            self._whole = trio.Event()
        if how is Cut.REFUSED:
            self.break_watches("the connection was closed")
        elif how is Cut.SILENT:
            self._network.start_soon(self._notice_silence, self._cuts)

    def mend(self) -> None:
        self.cut = Cut.NONE
        self._cuts += 1
        self._whole.set()

    async def _notice_silence(self, cut: int) -> None:
        await trio.sleep(SILENCE)
        if self._cuts == cut:
            self.break_watches("the store has gone silent")

    def break_watches(self, reason: str) -> None:
        for feed in self._feeds:
            self._network.start_soon(self._break, feed, reason)

    async def _break(self, feed: _Feed, reason: str) -> None:
        await self._awake()
        feed.end(StoreError(reason))

    # --- the Store

    async def snapshot(self) -> Snapshot:
        return await self._ask("list", self._store.snapshot)

    async def grant(self, ttl: int) -> Grant:
        return await self._ask(f"grant {ttl} s", lambda: self._store.grant(ttl))

    async def keepalive(self, lease_id: int) -> int:
        return await self._ask(f"keepalive {lease_id}", lambda: self._store.keepalive(lease_id))

    async def revoke(self, lease_id: int) -> None:
        await self._ask(f"revoke {lease_id}", lambda: self._store.revoke(lease_id))

    async def commit(self, transaction: Transaction) -> Committed | Refused:
        return await self._ask(_describe(transaction), lambda: self._store.commit(transaction))

    @asynccontextmanager
    async def watch(self, after: int) -> AsyncGenerator[AsyncIterator[Changes]]:
        feed = _Feed()
        self._feeds.append(feed)
        self._network.start_soon(self._pump, feed, after)
        try:
            yield feed
        finally:
            feed.scope.cancel()
            self._feeds.remove(feed)

    # --- how messages travel

    async def _ask(self, text: str, ask: Callable[[], Awaitable[T]]) -> T:
        self._asked()
        reply: _Reply[T] = _Reply()
        self._network.start_soon(self._carry, text, ask, reply)
        with trio.move_on_after(TIMEOUT):
            await reply.came.wait()
        if reply.error is not None:
            raise reply.error
        if not reply.came.is_set():
            raise StoreError(f"no answer within {TIMEOUT:.0f} s")
        return cast(T, reply.value)

    async def _carry(self, text: str, ask: Callable[[], Awaitable[T]], reply: _Reply[T]) -> None:
        if self.cut is Cut.REFUSED:
            await trio.sleep(REFUSAL)
            await self._deliver(reply, StoreError("connection refused"))
            return
        sent_at = trio.current_time()
        if not await self._arrives():
            self._trace.lost(self._name, "store", text)
            return
        if self._chance.random() < self.conditions.repeat:
            self._network.start_soon(self._repeat, text, ask)
        outcome = await self._execute(ask)
        self._trace.message(self._name, "store", text, trio.current_time() - sent_at)
        answer = _describe_outcome(outcome)
        answered_at = trio.current_time()
        if not await self._arrives():
            self._trace.lost("store", self._name, answer)
            return
        await self._deliver(reply, outcome)
        self._trace.message("store", self._name, answer, trio.current_time() - answered_at)

    async def _repeat(self, text: str, ask: Callable[[], Awaitable[T]]) -> None:
        """Deliver the same message once more; its answer is discarded."""
        if await self._arrives():
            outcome = await self._execute(ask)
            self._trace.message(self._name, "store", f"again: {text}: {_describe_outcome(outcome)}")

    async def _execute(self, ask: Callable[[], Awaitable[T]]) -> T | StoreError:
        try:
            return await ask()
        except StoreError as error:
            return error

    async def _arrives(self) -> bool:
        await trio.sleep(self._chance.random() * self.conditions.delay)
        return self.cut is Cut.NONE and self._chance.random() >= self.conditions.lose

    async def _deliver(self, reply: _Reply[T], outcome: T | StoreError) -> None:
        await self._awake()
        if isinstance(outcome, StoreError):
            reply.error = outcome
        else:
            reply.value = outcome
        reply.came.set()

    async def _pump(self, feed: _Feed, after: int) -> None:
        """Deliver a watch's changes in order and without loss, as long as the connection lasts."""
        with feed.scope:
            try:
                async with self._store.watch(after) as watch, trio.open_nursery() as under_way:
                    send, receive = trio.open_memory_channel[tuple[float, Changes]](1_000_000)
                    under_way.start_soon(self._unload, feed, receive)
                    async for changes in watch:
                        at = trio.current_time() + self._chance.random() * self.conditions.delay
                        send.send_nowait((at, changes))
            except* StoreError as group:
                await self._break(feed, str(group.exceptions[0]))

    async def _unload(self, feed: _Feed, receive: trio.MemoryReceiveChannel[tuple[float, Changes]]) -> None:
        async for at, changes in receive:
            await trio.sleep_until(at)
            await self._whole.wait()
            await self._awake()
            feed.put(changes)
            if changes.changes:
                names = ", ".join(change.name for change in changes.changes)
                self._trace.message("store", self._name, f"@{changes.revision} {names}")


class _Reply(Generic[T]):
    """The place of one answer, for the sender that waits."""

    def __init__(self) -> None:
        self.came = trio.Event()
        self.value: T | None = None
        self.error: StoreError | None = None


class _Feed:
    """The changes of a watch, for one reader."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self._items: deque[Changes] = deque()
        self._error: StoreError | None = None
        self._news = trio.Event()

    def put(self, changes: Changes) -> None:
        self._items.append(changes)
        self._news.set()

    def end(self, error: StoreError) -> None:
        self._error = self._error or error
        self._news.set()
        self.scope.cancel()

    def __aiter__(self) -> _Feed:
        return self

    async def __anext__(self) -> Changes:
        while not self._items:
            if self._error is not None:
                raise self._error
            self._news = trio.Event()
            await self._news.wait()
        await trio.lowlevel.checkpoint()
        return self._items.popleft()


def _describe(transaction: Transaction) -> str:
    words = []
    for action in transaction.actions:
        name = action.name.removeprefix("subnets/")
        is_new = any(g.name == action.name and g.equals == 0 for g in transaction.guards)
        match action:
            case Put() if is_new:
                words.append(f"create {name}")
            case Put():
                words.append(f"put {name}")
            case Delete():
                words.append(f"delete {name}")
    return ", ".join(words)


def _describe_outcome(outcome: object) -> str:
    match outcome:
        case Committed(revision=revision):
            return f"committed @{revision}"
        case Refused(revision=revision):
            return f"refused @{revision}"
        case Grant(lease_id=lease_id):
            return f"grant {lease_id}"
        case Snapshot(revision=revision, subnets=subnets):
            return f"{len(subnets)} subnets @{revision}"
        case int(ttl):
            return f"alive {ttl} s" if ttl else "gone"
        case StoreError():
            return f"error: {outcome}"
    return "done"
