"""One rtnetlink socket, driven by trio.

The kernel works through a request while it is being sent, so its answer is there at once.  An exchange is
therefore never cut short by a cancellation: half an answer left in the queue would only have to be thrown away
by the next.  Every answer is told from the others by its sequence number.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager

import trio

from overlayd.core.kernel.driver import ALL, DevicePattern, Keys, OnChange
from overlayd.host.netlink import wire
from overlayd.host.netlink.netns import in_netns
from overlayd.host.netlink.wire import Message, Refusal, Request

_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP = 1
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12
"""linux/socket.h and linux/netlink.h."""

_SO_RCVBUFFORCE = 33
"""asm-generic/socket.h; Python's socket module does not have it."""

_RECEIVE_BUFFER = 4 << 20
"""Bytes.  Room for some thousand notifications, or for one error on each message of a batch."""

_DATAGRAM = 64 << 10
"""Bytes.  The kernel never builds a larger answer than 32 KiB (netlink_dump in net/netlink/af_netlink.c)."""

_BATCH = 100
"""Requests in one send.  More gain nothing: by then the cost of the system call is spread thin."""

_DUMP_ATTEMPTS = 10


class Netlink:
    """Requests to one network namespace, in which devices that fit `devices` are ours."""

    def __init__(
        self, sock: trio.socket.SocketType, netns: str | None, devices: tuple[DevicePattern, ...] = ()
    ) -> None:
        self._sock = sock
        self._lock = trio.Lock()
        self._next = 1
        self.netns = netns
        self.devices = devices

    @property
    def port(self) -> int:
        """The number of this socket, by which notifications of what it did are known."""
        number: int = self._sock.getsockname()[0]
        return number

    async def execute(self, requests: Sequence[Request]) -> tuple[Refusal | None, ...]:
        """Send requests in order; for each the kernel's refusal, or None where it was done.

        OSError when the socket fails, which leaves unknown what was done.
        """
        outcomes: list[Refusal | None] = []
        for start in range(0, len(requests), _BATCH):
            async with self._exchange():
                outcomes += await self._execute_batch(requests[start : start + _BATCH])
        return tuple(outcomes)

    async def execute_one(self, request: Request) -> Refusal | None:
        (outcome,) = await self.execute((request,))
        return outcome

    async def _execute_batch(self, batch: Sequence[Request]) -> list[Refusal | None]:
        """Execute a batch. Errors are always reported, success only where an ACK is asked for: on the last one, as
        the end."""
        first = self._take(len(batch))
        last = first + len(batch) - 1
        frames = [request.frame(first + i) for i, request in enumerate(batch[:-1])]
        frames.append(batch[-1].frame(last, wire.NLM_F_ACK))
        await self._sock.send(b"".join(frames))
        outcomes: list[Refusal | None] = [None] * len(batch)
        while True:
            for message in await self._receive():
                if message.kind == wire.NLMSG_ERROR and first <= message.sequence <= last:
                    outcomes[message.sequence - first] = wire.refusal(message)
                    if message.sequence == last:
                        return outcomes

    async def ask(self, request: Request) -> Message:
        """Ask for the one answer to a request.  OSError when the kernel refuses."""
        async with self._exchange():
            sequence = self._take(1)
            await self._sock.send(request.frame(sequence, wire.NLM_F_ACK))
            answers: list[Message] = []
            while True:
                for message in await self._receive():
                    if message.sequence != sequence:
                        continue
                    if message.kind != wire.NLMSG_ERROR:
                        answers.append(message)
                    elif refused := wire.refusal(message):
                        raise refused.as_error()
                    else:
                        [answer] = answers
                        return answer

    async def dump(self, kind: int, body: bytes) -> list[Message]:
        """Dump everything that the kernel has of one kind, as it was at one instant.

        OSError when it refuses, or when it changes so fast that no instant could be caught.
        """
        for _ in range(_DUMP_ATTEMPTS):
            async with self._exchange():
                answer = await self._dump_once(Request(kind, wire.NLM_F_DUMP, body))
            if answer is not None:
                return answer
        raise OSError(
            errno.EAGAIN, f"the kernel's tables changed during each of {_DUMP_ATTEMPTS} attempts to read them"
        )

    async def _dump_once(self, request: Request) -> list[Message] | None:
        sequence = self._take(1)
        await self._sock.send(request.frame(sequence))
        answer: list[Message] = []
        interrupted = False
        while True:
            for message in await self._receive():
                if message.sequence != sequence:
                    continue
                interrupted = interrupted or bool(message.flags & wire.NLM_F_DUMP_INTR)
                if message.kind in (wire.NLMSG_DONE, wire.NLMSG_ERROR):
                    if refused := wire.refusal(message):
                        raise refused.as_error()
                    return None if interrupted else answer
                answer.append(message)

    @asynccontextmanager
    async def _exchange(self) -> AsyncGenerator[None, None]:
        async with self._lock:
            with trio.CancelScope(shield=True):
                yield

    def _take(self, count: int) -> int:
        """Take the first of `count` sequence numbers in a row.  They are 32 bits wide and 0 is never used."""
        if self._next + count > 1 << 32:
            self._next = 1
        first = self._next
        self._next += count
        return first

    async def _receive(self) -> list[Message]:
        return await _receive(self._sock)


class Notifications:
    """The kernel's reports of changes that any program makes."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._sock = sock

    async def receive(self) -> list[Message] | None:
        """Receive the next ones, or None where some were lost because they came faster than they were read."""
        try:
            return await _receive(self._sock)
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                return None
            raise


async def _receive(sock: trio.socket.SocketType) -> list[Message]:
    data, _, flags, _ = await sock.recvmsg(_DATAGRAM)
    if flags & socket.MSG_TRUNC:
        raise OSError(errno.EMSGSIZE, f"the kernel sent a netlink datagram of more than {_DATAGRAM} bytes")
    return list(wire.messages(data))


@asynccontextmanager
async def open_netlink(
    netns: str | None = None, devices: tuple[DevicePattern, ...] = ()
) -> AsyncGenerator[Netlink, None]:
    """Open a connection to this network namespace, or to another one (see `in_netns`); `devices` are those
    that are ours there."""
    with trio.socket.from_stdlib_socket(in_netns(netns, open_socket)) as sock:
        for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
            sock.setsockopt(_SOL_NETLINK, option, 1)
        await sock.bind((0, 0))
        yield Netlink(sock, netns, devices)


@asynccontextmanager
async def open_notifications(
    netns: str | None, groups: Sequence[int], protocol: int = socket.NETLINK_ROUTE
) -> AsyncGenerator[Notifications, None]:
    """Open a source of changes from now on in these multicast groups (RTNLGRP_*, or those of another protocol)."""
    with trio.socket.from_stdlib_socket(in_netns(netns, lambda: open_socket(protocol))) as sock:
        await sock.bind((0, 0))
        for group in groups:
            sock.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
        yield Notifications(sock)


async def tell_changes(
    notifications: Notifications, concerned: Callable[[Message], Keys], on_change: OnChange
) -> None:
    """Call `on_change` for ever; `concerned` says which keys a message is about, the empty set for none."""
    while True:
        messages = await notifications.receive()
        keys: Keys = ALL if messages is None else frozenset()
        for message in messages or ():
            more = concerned(message)
            keys = ALL if keys is ALL or more is ALL else keys | more
        if keys is ALL or keys:
            on_change(keys)


def open_socket(protocol: int = socket.NETLINK_ROUTE) -> socket.socket:
    """Open a netlink socket that is not bound yet, with room for many answers."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)  # as much as an ordinary user gets
    return sock
