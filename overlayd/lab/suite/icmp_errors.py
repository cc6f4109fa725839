"""Errors about packets that were not delivered, read from a socket's error queue (ip(7)).

A socket with IP_RECVERR keeps each ICMP error with the address of the router that sent it.  So a reason can name
the router that refused, and a traceroute needs no raw socket.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address

IP_RECVERR = 11
"""linux/in.h"""

_EXTENDED_ERROR = struct.Struct("=IBBBBII")
"""struct sock_extended_err (linux/errqueue.h): errno, origin, type, code, padding, info, data."""
_ORIGIN_ICMP = 2
"""SO_EE_ORIGIN_ICMP (linux/errqueue.h): the error came from the network; the offender's address follows."""

TIME_EXCEEDED = 11
FRAGMENTATION_NEEDED = (3, 4)
"""ICMP type and code (RFC 792)."""


@dataclass(frozen=True, slots=True)
class IcmpError:
    """An error about a packet that was sent.

    `by` is the sender of the ICMP message, None where this kernel itself refused.  `mtu` is in bytes, and 0 unless
    the packet was too big.
    """

    errno: int
    by: IPv4Address | None = None
    icmp: tuple[int, int] | None = None
    mtu: int = 0

    @property
    def is_time_exceeded(self) -> bool:
        return self.icmp is not None and self.icmp[0] == TIME_EXCEEDED

    @property
    def is_fragmentation_needed(self) -> bool:
        return self.icmp == FRAGMENTATION_NEEDED

    def __str__(self) -> str:
        if self.is_time_exceeded:
            text = "time to live exceeded"
        elif self.errno == errno.EMSGSIZE:
            text = f"message too long for an MTU of {self.mtu}" if self.mtu else "message too long"
        else:
            text = why(self.errno)
        return f"{text}, says {self.by}" if self.by else text


def why(number: int) -> str:
    """Describe an errno value, for use within a sentence."""
    text = os.strerror(number)
    return text[:1].lower() + text[1:]


def parse_icmp_error(data: bytes) -> IcmpError:
    """Parse the control message of an error queue.  Raises struct.error where it is too short."""
    number, origin, kind, code, _, info, _ = _EXTENDED_ERROR.unpack_from(data)
    if origin != _ORIGIN_ICMP:
        return IcmpError(number, mtu=info if number == errno.EMSGSIZE else 0)
    _family, _port, packed = struct.unpack_from("=HH4s", data, _EXTENDED_ERROR.size)
    return IcmpError(number, IPv4Address(packed), (kind, code), info if number == errno.EMSGSIZE else 0)


def find_icmp_error(sock: socket.socket) -> IcmpError | None:
    """Take the next error from the queue of a non-blocking socket; None if there is none."""
    try:
        _, ancillary, _, _ = sock.recvmsg(1, 512, socket.MSG_ERRQUEUE)
    except BlockingIOError:
        return None
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind == IP_RECVERR:
            return parse_icmp_error(data)
    return None


def receive(sock: socket.socket, size: int) -> bytes | IcmpError | None:
    """Receive from a non-blocking datagram socket: a datagram, an error, or None if there is neither yet."""
    queued = find_icmp_error(sock)
    if queued is not None:
        return queued
    try:
        return sock.recv(size)
    except BlockingIOError:
        return None
    except OSError as error:  # the pending error of a message that has just arrived in the queue
        return find_icmp_error(sock) or IcmpError(error.errno or 0)
