"""The loop around an engine in Python: reads, asks the engine, writes; a thread for each direction.

A thread reads all that waits, up to a batch, since the more the engine sees at once the more it can join.  What
the kernel refuses of one packet is counted and ends nothing; a descriptor that is dead ends the thread.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from overlayd_backends.udp.device import (
    IP_MTU_DISCOVER,
    IP_PMTUDISC_DO,
    IP_PMTUDISC_DONT,
    UDP_GRO,
    UDP_SEGMENT,
)
from overlayd_backends.udp.engine import Datagram, Frames, PythonEngine
from overlayd_backends.udp.gso_batch import Send
from overlayd_backends.udp.packet import OFFLOAD

LONGEST = 65_535
"""Bytes of an IPv4 packet (RFC 791 section 3.1)."""
BATCH = 64
"""Reads in a batch."""
BATCH_BYTES = 256 * 1024
"""A batch ends once it has read so many, so that its first packet does not wait long for the last."""

IP_MTU = 14
"""linux/in.h"""
_NOT_AS_TRAIN = frozenset({errno.EINVAL, errno.EIO})
"""What older kernels, and a path through IPsec, say of UDP_SEGMENT."""
_DEAD = frozenset({errno.EBADF, errno.EBADFD, errno.ENOTSOCK})
"""EBADFD: the TUN device is gone."""

_INT = struct.Struct("i")
_U16 = struct.Struct("H")

T = TypeVar("T")


class PythonLoop:
    """Carries packets between a TUN device, a UDP socket and an engine until `stop_fd`, an eventfd, is readable.

    The descriptors stay the caller's; the first two are non-blocking.  `run_tx` and `run_rx` block, each for a
    thread of its own, and raise OSError where a descriptor is dead.
    """

    def __init__(self, engine: PythonEngine, tun_fd: int, udp_fd: int, stop_fd: int) -> None:
        self._engine = engine
        self._tun_fd = tun_fd
        self._udp_fd = udp_fd
        self._stop_fd = stop_fd

    def replace(self, packed_table: bytes) -> None:
        """Replace the whole table from the next batch on; ValueError if it is malformed."""
        self._engine.replace(packed_table)

    def counters(self) -> dict[str, int]:
        """Return the counters by the names of docs/datapath.md."""
        return self._engine.counters()

    def run_tx(self) -> None:
        """Carry packets from the TUN to the peers."""
        with socket.socket(fileno=os.dup(self._udp_fd)) as udp:
            for frames in self._batches(self._tun_fd, self._read, len):
                sends, messages = self._engine.depart(frames, time.monotonic())
                self._tell(messages)
                for send in sends:
                    self._send(udp, send)

    def run_rx(self) -> None:
        """Carry packets from the peers to the TUN."""

        def receive() -> Datagram:
            payload, control, _, (address, _) = udp.recvmsg(LONGEST, socket.CMSG_SPACE(_INT.size))
            return socket.inet_aton(address), _segment_size(control), payload

        with socket.socket(fileno=os.dup(self._udp_fd)) as udp:
            for datagrams in self._batches(self._udp_fd, receive, lambda datagram: len(datagram[2])):
                for write in self._engine.arrive(datagrams):
                    if self._is_written(write.frame):
                        self._engine.count_written(write)
                    else:
                        self._engine.count_unwritten(write)

    def _batches(self, fd: int, read: Callable[[], T], size: Callable[[T], int]) -> Iterator[list[T]]:
        """Yield batches that can be read without waiting, until it is time to stop."""
        readable = select.poll()
        readable.register(fd, select.POLLIN)
        readable.register(self._stop_fd, select.POLLIN)
        while True:
            ready = [ready_fd for ready_fd, _ in readable.poll()]
            if self._stop_fd in ready:
                return
            batch: list[T] = []
            room = BATCH_BYTES
            while len(batch) < BATCH and room > 0:
                try:
                    one = read()
                except BlockingIOError:
                    break
                batch.append(one)
                room -= size(one)
            yield batch

    def _read(self) -> bytes:
        return os.read(self._tun_fd, OFFLOAD.size + LONGEST)

    def _is_written(self, frame: bytes) -> bool:
        """Write a frame; False if the kernel refused it, as it does while the device is down."""
        try:
            os.write(self._tun_fd, frame)
        except OSError as error:
            _raise_if_dead(error)
            return False
        return True

    def _tell(self, messages: Frames) -> None:
        for message in messages:
            if not self._is_written(message):
                self._engine.count_untold()

    def _send(self, udp: socket.socket, send: Send) -> None:
        error = self._find_refusal(udp, send)
        if error is None:
            self._engine.count_sent(send)
            return
        mtu = None
        if error.errno == errno.EMSGSIZE or (send.segment_size and error.errno in _NOT_AS_TRAIN):
            mtu = _find_path_mtu(send)
        if mtu is None:
            self._engine.count_unsent(send)
            return
        again, messages = self._engine.retry(send, mtu, time.monotonic())
        self._tell(messages)
        udp.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
        try:
            for single in again:
                if self._find_refusal(udp, single) is None:
                    self._engine.count_sent(single)
                else:
                    self._engine.count_unsent(single)
        finally:
            udp.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)

    def _find_refusal(self, udp: socket.socket, send: Send) -> OSError | None:
        """Send; the error if the kernel would not.  Waits while the socket's buffer is full."""
        segment = _U16.pack(send.segment_size)
        control = [(socket.IPPROTO_UDP, UDP_SEGMENT, segment)] if send.segment_size else []
        address = (socket.inet_ntoa(send.peer), send.port)
        while True:
            try:
                udp.sendmsg([send.payload], control, 0, address)
            except BlockingIOError as error:
                if not self._wait_writable(udp):
                    return error
            except OSError as error:
                _raise_if_dead(error)
                return error
            else:
                return None

    def _wait_writable(self, udp: socket.socket) -> bool:
        """Wait for room; False if it is time to stop before."""
        writable = select.poll()
        writable.register(udp, select.POLLOUT)
        writable.register(self._stop_fd, select.POLLIN)
        return all(fd != self._stop_fd for fd, _ in writable.poll())


def _segment_size(control: list[tuple[int, int, bytes]]) -> int:
    """Return the segment size of a datagram that UDP_GRO joined; 0 for any other."""
    for level, kind, data in control:
        if level == socket.IPPROTO_UDP and kind == UDP_GRO:
            (size,) = _INT.unpack(data)
            return int(size)
    return 0


def _find_path_mtu(send: Send) -> int | None:
    """Return the MTU of the path to a peer in bytes, as far as the kernel knows; None if there is no path."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((socket.inet_ntoa(send.peer), send.port))
            return probe.getsockopt(socket.IPPROTO_IP, IP_MTU)
        except OSError:
            return None


def _raise_if_dead(error: OSError) -> None:
    if error.errno in _DEAD:
        raise error
