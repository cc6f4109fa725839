"""One watch: a stream from etcd, read by a thread of its own, told as Changes.

gRPC's streams can only be read by a thread that blocks.  It hands each response over to trio and waits until
there is room, so a slow reader slows etcd down and nothing piles up here.  Whoever leaves the watch closes the
trio side first and cancels the call second: whichever of the two the thread is waiting for, it ends.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from queue import SimpleQueue
from typing import Any

import grpc
import trio

from overlayd.core.leases.store import Change, Changes, Compacted, Deleted, Record, StoreError, is_watched
from overlayd.store.etcd.connection import DEADLINE, EtcdTransport, Metadata
from overlayd.store.etcd.failure import no_answer, translate, translate_cancel
from overlayd.store.etcd.keys import Keyspace
from overlayd.store.etcd.schema import rpc

IDLE = 10.0
"""Seconds without a response after which etcd is asked to say something."""

ROOM = 16
"""Responses that may wait for the reader before the thread pauses."""

_HAS_LEADER = (("hasleader", "true"),)
"""Asks a member that has lost its quorum to end the watch, where it would fall silent otherwise."""

_PROGRESS = rpc.WatchRequest.FromString(b"\x1a\x00")
"""WatchRequest.progress_request = {} (field 3 of etcd's rpc.proto since 3.4, younger than etcd3's schema; an
older server ignores it)."""


def record(keys: Keyspace, kv: Any) -> Record:
    return Record(keys.name(kv.key), kv.value, kv.create_revision, kv.mod_revision, kv.lease)


def read_response(keys: Keyspace, where: str, response: Any, seen: int) -> Changes:
    """Read a response for a reader who has everything up to and including revision `seen`.

    Raises Compacted or StoreError where the watch cannot go on.
    """
    if response.compact_revision:
        raise Compacted(
            f"etcd at {where} has compacted its history up to revision {response.compact_revision}, "
            f"past revision {seen} where this watch stood"
        )
    if response.canceled:
        raise translate_cancel(where, response.cancel_reason)
    if response.created and response.header.revision < seen:
        raise StoreError(
            f"etcd at {where} stands at revision {response.header.revision}, before revision {seen}, seen before: "
            "the member lags behind, or was restored from a backup"
        )
    if not response.events:
        # The header's revision is no promise that everything up to it was sent: servers before 3.4.25 and
        # 3.5.8 answer a progress request ahead of events still queued.
        return Changes(seen, ())
    changes: list[Change] = []
    for event in response.events:
        name = keys.name(event.kv.key)
        if is_watched(name):
            deleted = event.type == event.DELETE
            changes.append(Deleted(name, event.kv.mod_revision) if deleted else record(keys, event.kv))
    # Not the header's revision, which runs ahead of the events while etcd replays history in batches.  A batch
    # never splits a revision.
    return Changes(response.events[-1].kv.mod_revision, tuple(changes))


@asynccontextmanager
async def open_watch(
    wire: EtcdTransport, keys: Keyspace, after: int, metadata: Metadata
) -> AsyncGenerator[AsyncIterator[Changes]]:
    """Watch everything below the prefix from revision `after` + 1 on.  Raises StoreError unless etcd begins it."""
    first, end = keys.everything
    create = rpc.WatchCreateRequest(key=first, range_end=end, start_revision=after + 1)
    requests: SimpleQueue[Any] = SimpleQueue()
    requests.put(rpc.WatchRequest(create_request=create))
    call = wire.watch.Watch(iter(requests.get, None), metadata=_HAS_LEADER + metadata)
    token = trio.lowlevel.current_trio_token()
    send, receive = trio.open_memory_channel[Any](ROOM)
    ended = trio.Event()

    def pump() -> None:
        try:
            for item in _items(call):
                trio.from_thread.run(send.send, item, trio_token=token)
        except trio.BrokenResourceError:
            return  # nobody listens any longer
        finally:
            token.run_sync_soon(ended.set)

    with wire.use():
        threading.Thread(target=pump, name="etcd-watch", daemon=True).start()
        try:
            watch = _Watch(wire.where, keys, after, receive, requests)
            await watch.begin()
            yield watch
        finally:
            receive.close()
            requests.put(None)
            call.cancel()
            with trio.CancelScope(shield=True):
                await ended.wait()


def _items(call: Any) -> Any:
    """Yield the responses of a stream, and last the error or None that it ended with."""
    try:
        yield from call
    except grpc.RpcError as error:
        yield error
    else:
        yield None


class _Watch:
    """The trio side: turns responses into Changes, and asks for a sign of life when there are none."""

    def __init__(
        self,
        where: str,
        keys: Keyspace,
        after: int,
        receive: trio.MemoryReceiveChannel[Any],
        requests: SimpleQueue[Any],
    ) -> None:
        self._where = where
        self._keys = keys
        self._seen = after
        self._receive = receive
        self._requests = requests
        self._first: Changes | None = None

    async def begin(self) -> None:
        """Wait for the first response, in which etcd says whether it takes the watch on."""
        with trio.move_on_after(DEADLINE):
            self._first = self._read(await self._receive.receive())
            return
        raise no_answer(self._where, DEADLINE)

    def __aiter__(self) -> _Watch:
        return self

    async def __anext__(self) -> Changes:
        if self._first is not None:
            await trio.lowlevel.checkpoint()
            first, self._first = self._first, None
            return first
        while True:
            with trio.move_on_after(IDLE):
                return self._read(await self._receive.receive())
            self._requests.put(_PROGRESS)

    def _read(self, response: Any) -> Changes:
        if response is None:
            raise StoreError(f"etcd at {self._where} ended the watch")
        if isinstance(response, grpc.RpcError):
            raise translate(self._where, response, DEADLINE) from response
        changes = read_response(self._keys, self._where, response, self._seen)
        self._seen = changes.revision
        return changes
