"""Exchanges with a kernel played by the test: every answer finds its request, whatever comes between."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from overlayd.host.netlink import wire
from overlayd.host.netlink.connection import Netlink

Kernel = trio.socket.SocketType


@asynccontextmanager
async def netlink_to(kernel: Callable[[Kernel], Awaitable[None]]) -> AsyncIterator[Netlink]:
    """A connection whose other end is `kernel`, run until the block is left."""
    ours, theirs = trio.socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kernel, theirs)
            yield Netlink(ours, None)
            nursery.cancel_scope.cancel()


def answer(kind: int, sequence: int, body: bytes, flags: int = 0) -> bytes:
    return wire.Request(kind, flags & ~wire.NLM_F_REQUEST, body).frame(sequence) + bytes(-len(body) % 4)


def error(sequence: int, number: int) -> bytes:
    return answer(wire.NLMSG_ERROR, sequence, struct.pack("=i", -number) + bytes(16), flags=0x100)


@settings(max_examples=50)
@given(st.integers(0, 250), st.sets(st.integers(0, 249)), st.integers(1, 7), st.integers(0, 3))
def test_every_outcome_finds_its_request(count: int, failing: set[int], in_one: int, stale: int) -> None:
    """Errors come for the failing ones, several in a datagram, among the remains of earlier exchanges; an
    acknowledgement only where it is asked for."""
    batches: list[int] = []

    async def kernel(sock: Kernel) -> None:
        while True:
            requests = list(wire.messages(await sock.recv(1 << 18)))
            batches.append(len(requests))
            assert [bool(r.flags & wire.NLM_F_ACK) for r in requests] == [False] * (len(requests) - 1) + [True]
            # what is left of exchanges long over; sequence numbers start at 1
            answers = [error(0xFFFFFF00 + n, errno.EBUSY) for n in range(stale)]
            for request in requests:
                position = struct.unpack("=I", request.body)[0]
                if position in failing:
                    answers.append(error(request.sequence, 1000 + position))
                elif request.flags & wire.NLM_F_ACK:
                    answers.append(error(request.sequence, 0))
            for start in range(0, len(answers), in_one):
                await sock.send(b"".join(answers[start : start + in_one]))

    async def main() -> None:
        async with netlink_to(kernel) as netlink:
            requests = [wire.Request(wire.RTM_NEWROUTE, 0, struct.pack("=I", n)) for n in range(count)]
            with trio.fail_after(30):
                outcomes = await netlink.execute(requests)
        found = [outcome.errno - 1000 if outcome else None for outcome in outcomes]
        assert found == [n if n in failing else None for n in range(count)]
        assert batches == [100] * (count // 100) + ([count % 100] if count % 100 else [])

    trio.run(main)


def dumping(interrupted: int, rows: int = 3) -> Callable[[Kernel], Awaitable[None]]:
    """A kernel whose tables change during the first `interrupted` dumps."""
    left = interrupted

    async def kernel(sock: Kernel) -> None:
        nonlocal left
        while True:
            (request,) = wire.messages(await sock.recv(1 << 18))
            assert request.flags & wire.NLM_F_DUMP == wire.NLM_F_DUMP
            flags = wire.NLM_F_DUMP_INTR if left else 0
            for row in range(rows):
                body = struct.pack("=II", left, row)
                await sock.send(answer(wire.RTM_NEWROUTE, request.sequence, body, flags if row == 1 else 0))
            await sock.send(answer(wire.NLMSG_DONE, request.sequence, struct.pack("=i", 0)))
            left = max(left - 1, 0)

    return kernel


async def test_a_dump_that_was_interrupted_is_made_again() -> None:
    async with netlink_to(dumping(interrupted=3)) as netlink:
        rows = await netlink.dump(wire.RTM_GETROUTE, b"")
    assert [struct.unpack("=II", row.body) for row in rows] == [(0, 0), (0, 1), (0, 2)]


async def test_tables_that_never_hold_still_are_an_error() -> None:
    async with netlink_to(dumping(interrupted=1000)) as netlink:
        with pytest.raises(OSError, match="changed during each") as caught:
            await netlink.dump(wire.RTM_GETROUTE, b"")
    assert caught.value.errno == errno.EAGAIN


@pytest.mark.parametrize("kind", [wire.NLMSG_ERROR, wire.NLMSG_DONE])
async def test_a_dump_that_fails_raises(kind: int) -> None:
    async def kernel(sock: Kernel) -> None:
        while True:
            (request,) = wire.messages(await sock.recv(1 << 18))
            await sock.send(answer(kind, request.sequence, struct.pack("=i", -errno.ENODEV)))

    async with netlink_to(kernel) as netlink:
        with pytest.raises(OSError, match="No such device") as caught:
            await netlink.dump(wire.RTM_GETNEIGH, b"")
    assert caught.value.errno == errno.ENODEV


async def test_a_datagram_that_does_not_fit_is_an_error_and_not_half_an_answer() -> None:
    async def kernel(sock: Kernel) -> None:
        (request,) = wire.messages(await sock.recv(1 << 18))
        await sock.send(answer(wire.RTM_NEWROUTE, request.sequence, bytes(100_000)))
        await trio.sleep_forever()

    async with netlink_to(kernel) as netlink:
        with pytest.raises(OSError, match="more than") as caught:
            await netlink.dump(wire.RTM_GETROUTE, b"")
    assert caught.value.errno == errno.EMSGSIZE


async def test_an_exchange_is_not_cut_short_and_the_next_one_reads_its_own_answer() -> None:
    released = trio.Event()

    async def kernel(sock: Kernel) -> None:
        while True:
            (request,) = wire.messages(await sock.recv(1 << 18))
            await released.wait()
            await sock.send(error(request.sequence, request.kind))

    async with netlink_to(kernel) as netlink, trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            nursery.start_soon(cancel_then_release, scope, released)
            await netlink.execute_one(wire.Request(wire.RTM_NEWADDR, 0, b""))
            await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught
        refused = await netlink.execute_one(wire.Request(wire.RTM_NEWROUTE, 0, b""))
        assert refused is not None
        assert refused.errno == wire.RTM_NEWROUTE


async def cancel_then_release(scope: trio.CancelScope, released: trio.Event) -> None:
    await trio.testing.wait_all_tasks_blocked()
    scope.cancel()
    await trio.testing.wait_all_tasks_blocked()
    released.set()


async def test_two_tasks_may_ask_at_once() -> None:
    async def kernel(sock: Kernel) -> None:
        while True:
            for request in wire.messages(await sock.recv(1 << 18)):
                await trio.lowlevel.checkpoint()
                await sock.send(error(request.sequence, request.kind))

    async with netlink_to(kernel) as netlink, trio.open_nursery() as nursery:

        async def ask(kind: int) -> None:
            refused = await netlink.execute_one(wire.Request(kind, 0, b""))
            assert refused is not None
            assert refused.errno == kind

        for kind in range(20, 40):
            nursery.start_soon(ask, kind)


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_question_gets_its_one_answer(at_once: bool) -> None:
    """Told from what is left of earlier exchanges; the acknowledgement behind it is read, too."""

    async def kernel(sock: Kernel) -> None:
        while True:
            (request,) = wire.messages(await sock.recv(1 << 18))
            assert request.flags & wire.NLM_F_DUMP != wire.NLM_F_DUMP
            said = [
                answer(wire.RTM_NEWROUTE, 0xFFFFFF00, b"old!"),
                error(0xFFFFFF00, errno.EBUSY),
                answer(wire.RTM_NEWROUTE, request.sequence, bytes(request.body)),
                error(request.sequence, 0),
            ]
            for datagram in [b"".join(said)] if at_once else said:
                await sock.send(datagram)

    async with netlink_to(kernel) as netlink:
        for question in (b"one?", b"two?"):
            assert bytes((await netlink.ask(wire.Request(wire.RTM_GETROUTE, 0, question))).body) == question


async def test_a_question_that_is_refused_raises() -> None:
    async def kernel(sock: Kernel) -> None:
        (request,) = wire.messages(await sock.recv(1 << 18))
        await sock.send(error(request.sequence, errno.ENETUNREACH))
        await trio.sleep_forever()

    async with netlink_to(kernel) as netlink:
        with pytest.raises(OSError, match="unreachable") as caught:
            await netlink.ask(wire.Request(wire.RTM_GETROUTE, 0, b""))
    assert caught.value.errno == errno.ENETUNREACH
