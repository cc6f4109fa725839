"""What only a real etcd can do to its client: fall silent, die, come back, hold keys of somebody else."""

from __future__ import annotations

import re
import secrets
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator

import pytest
import trio

from overlayd.core.leases.store import (
    Change,
    Changes,
    Delete,
    Deleted,
    Put,
    Record,
    Store,
    StoreError,
    StoreRefused,
    Transaction,
)
from overlayd.store.etcd import connection, open_etcd
from overlayd.store.etcd import watch as etcd_watch
from support.etcd import Etcd, open_cluster

PATIENCE = 30.0
"""Seconds that anything promised may take."""


@pytest.fixture(scope="module")
def etcd() -> Generator[Etcd]:
    with Etcd() as etcd:
        yield etcd


@pytest.fixture
def prefix() -> str:
    return f"/test/{secrets.token_hex(8)}"


@pytest.fixture
async def store(etcd: Etcd, prefix: str) -> AsyncGenerator[Store]:
    async with open_etcd([etcd.endpoint], prefix) as store:
        yield store


async def put_config(store: Store, value: bytes) -> int:
    return (await store.commit(Transaction((), (Put("config", value, 0),)))).revision


async def wait_answer(store: Store) -> None:
    with trio.fail_after(PATIENCE):
        while True:
            try:
                await store.snapshot()
            except StoreError:
                await trio.sleep(0.1)
            else:
                return


@pytest.mark.parametrize(
    "request_of",
    [
        lambda store: store.snapshot(),
        lambda store: store.grant(60),
        lambda store: store.keepalive(1),
        lambda store: store.revoke(1),
        lambda store: store.commit(Transaction((), (Delete("x"),))),
    ],
    ids=["snapshot", "grant", "keepalive", "revoke", "commit"],
)
async def test_every_request_to_a_dead_store_says_where_and_why(
    request_of: Callable[[Store], Awaitable[object]], prefix: str
) -> None:
    """Opening is no request: it works without the store."""
    async with open_etcd(["http://127.0.0.1:1"], prefix) as store:
        with pytest.raises(StoreError, match=r"^etcd at 127\.0\.0\.1:1 refuses the connection: nothing listens"):
            await request_of(store)
        with pytest.raises(StoreError, match=r"^etcd at 127\.0\.0\.1:1 refuses the connection: nothing listens"):
            async with store.watch(1) as watch:
                await anext(watch)


@pytest.fixture
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores opened from now on ask a silent server after a second whether it lives, and give it two to answer."""
    hurried = {**dict(connection.OPTIONS), "grpc.keepalive_time_ms": 1000, "grpc.http2.ping_timeout_ms": 2000}
    monkeypatch.setattr(connection, "OPTIONS", tuple(hurried.items()))


@pytest.mark.usefixtures("impatience")
async def test_a_frozen_store_fails_requests_and_watches_and_serves_again(etcd: Etcd, store: Store) -> None:
    revision = await put_config(store, b"before")
    async with store.watch(revision) as watch:
        assert await anext(watch) == Changes(revision, ())
        with trio.fail_after(PATIENCE), etcd.frozen():
            with pytest.raises(StoreError, match=r"did not answer within 5 s|stopped answering"):
                await store.snapshot()
            with pytest.raises(StoreError, match="stopped answering"):
                await anext(watch)
            with pytest.raises(StoreError):  # a new watch has a connection of its own to wait for
                async with store.watch(revision) as again:
                    await anext(again)
    await wait_answer(store)
    after = await put_config(store, b"after")
    async with store.watch(revision) as watch:
        assert (await anext(watch)).changes == ()
        assert await anext(watch) == Changes(after, (Record("config", b"after", revision, after, 0),))


async def test_a_request_to_a_frozen_store_can_be_cancelled(etcd: Etcd, store: Store) -> None:
    await store.snapshot()
    with etcd.frozen(), trio.move_on_after(0.3) as waited:
        await store.snapshot()
    assert waited.cancelled_caught
    await wait_answer(store)


async def test_a_watch_continues_after_a_restart_without_loss_or_repetition(prefix: str) -> None:
    with Etcd() as etcd:
        async with open_etcd([etcd.endpoint], prefix) as store, open_etcd([etcd.endpoint], prefix) as writer:
            seen = await put_config(store, b"0")
            values: list[Change] = []
            for round_ in range(2):
                async with store.watch(seen) as watch:
                    revision = await put_config(writer, b"%d live" % round_)
                    while seen < revision:
                        changes = await anext(watch)
                        values += changes.changes
                        seen = changes.revision
                    etcd.kill()
                    with trio.fail_after(PATIENCE), pytest.raises(StoreError, match="closed the connection"):
                        await anext(watch)
                etcd.start()
                await wait_answer(writer)
                await wait_answer(store)
                await put_config(writer, b"%d missed" % round_)
            async with store.watch(seen) as watch:
                while len(values) < 4:
                    values += (await anext(watch)).changes
    records = [value for value in values if isinstance(value, Record)]
    # What was missed in round 0 came with the watch of round 1.
    assert [record.value for record in records] == [b"0 live", b"0 missed", b"1 live", b"1 missed"]


async def test_another_endpoint_serves_when_one_is_dead(etcd: Etcd, prefix: str) -> None:
    dead = "http://127.0.0.1:1"
    async with open_etcd([dead, etcd.endpoint], prefix) as store:
        revision = await put_config(store, b"{}")
    async with open_etcd([dead, f"localhost:{etcd.client_port}"], prefix) as store, store.watch(revision) as watch:
        assert await anext(watch) == Changes(revision, ())
    async with open_etcd([dead, "http://localhost:2"], prefix) as store:
        with pytest.raises(StoreError, match=r"127\.0\.0\.1:1 refuses .*; etcd at localhost:2 refuses"):
            await store.snapshot()


async def test_a_member_without_a_quorum_ends_its_watches_instead_of_falling_silent(prefix: str) -> None:
    with open_cluster(2) as (left, other):
        async with open_etcd([left.endpoint], prefix) as store:
            revision = await put_config(store, b"{}")
            async with store.watch(revision) as watch:
                await anext(watch)
                other.kill()
                with trio.fail_after(PATIENCE), pytest.raises(StoreError, match="no leader"):
                    await anext(watch)
            with pytest.raises(StoreError, match=r"did not answer within 5 s|failed: .*leader"):
                await store.snapshot()
            other.start()
            await wait_answer(store)


async def test_keys_of_others_are_not_seen(etcd: Etcd, store: Store, prefix: str) -> None:
    start = (await store.snapshot()).revision
    for key in (f"{prefix}2/config", f"{prefix}2/subnets/a", prefix, f"{prefix}/", f"{prefix}/subnetsX", "/"):
        await etcd.ctl("put", key, "other")
    end = await put_config(store, b"{}")
    snapshot = await store.snapshot()
    assert snapshot.subnets == ()
    async with store.watch(start) as watch:
        found: tuple[object, ...] = ()
        while not found:
            found = (await anext(watch)).changes
    assert found == (snapshot.config,) == (Record("config", b"{}", end, end, 0),)


async def test_binary_keys_and_values_are_shown_as_they_are(etcd: Etcd, store: Store, prefix: str) -> None:
    start = (await store.snapshot()).revision
    key = prefix.encode() + b"/subnets/\xff\xfe\n \xc3\xa9"
    await etcd.ctl("put", key, stdin=b"\x00\xff" * 500_000)
    (record,) = (await store.snapshot()).subnets
    assert record.name == "subnets/\\xff\\xfe\n é"
    assert record.value == b"\x00\xff" * 500_000
    await etcd.ctl("del", key)
    async with store.watch(start) as watch:
        changes = [change async for changes in _until(watch, start + 2) for change in changes.changes]
    assert changes == [record, Deleted(record.name, start + 2)]


async def _until(watch: object, revision: int) -> AsyncGenerator[Changes]:
    async for changes in watch:  # type: ignore[attr-defined]
        yield changes
        if changes.revision >= revision:
            return


async def test_an_idle_watch_shows_life(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etcd_watch, "IDLE", 0.1)
    revision = await put_config(store, b"{}")
    async with store.watch(revision) as watch:
        with trio.fail_after(PATIENCE):
            for _ in range(5):
                assert await anext(watch) == Changes(revision, ())
            revision = await put_config(store, b"later")
            while not (await anext(watch)).changes:
                pass
            assert await anext(watch) == Changes(revision, ())


async def test_what_etcd_refuses_is_told_in_its_words(store: Store) -> None:
    with pytest.raises(StoreRefused, match=r"^etcd at 127\.0\.0\.1:\d+ refused: requested lease not found"):
        await store.commit(Transaction((), (Put("config", b"", 7),)))
    with pytest.raises(StoreRefused, match="refused: request is too large"):
        await put_config(store, b"x" * 2_000_000)


async def test_something_that_is_not_etcd_is_named(prefix: str) -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, answer, [listener])
        port = listener.socket.getsockname()[1]
        async with open_etcd([f"127.0.0.1:{port}"], prefix) as store:
            with pytest.raises(StoreError, match=f"127.0.0.1:{port} .*HTTP/1"):
                await store.snapshot()
        nursery.cancel_scope.cancel()


async def test_closing_leaves_no_thread(etcd: Etcd, prefix: str) -> None:
    before = set(threading.enumerate())
    async with open_etcd([etcd.endpoint], prefix) as store:
        for _ in range(3):
            async with store.watch((await store.snapshot()).revision) as watch:
                await anext(watch)
    for thread in set(threading.enumerate()) - before:
        await trio.to_thread.run_sync(thread.join, PATIENCE)
        assert not thread.is_alive()


PROGRAM = """
import sys, trio
from overlayd.store.etcd import open_etcd

async def main():
    async with open_etcd([sys.argv[1]], "/test") as store, store.watch(0) as watch:
        await anext(watch)
        print("watching", flush=True)
        raise KeyError("the program's own")

trio.run(main)
"""


def test_a_program_that_fails_while_it_watches_ends_and_prints_only_its_own_error(etcd: Etcd) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, etcd.endpoint],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ended.stdout == "watching\n"
    assert ended.returncode == 1
    assert ended.stderr.startswith("Traceback")
    assert re.search(r"^KeyError: \"the program's own\"\n\Z", ended.stderr, re.MULTILINE)
