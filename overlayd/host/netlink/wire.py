"""The frame of every netlink message: a header, a fixed part of its own, attributes.

Sources: linux/netlink.h for the header, its flags and the form of errors; linux/rtnetlink.h for the types.
Numbers are in host byte order, and everything is padded to 4 bytes.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

HEADER = struct.Struct("=IHHII")
"""struct nlmsghdr: length with this header, type, flags, sequence number, port of the sender."""

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP_INTR = 0x10
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
_NLM_F_CAPPED = 0x100
_NLM_F_ACK_TLVS = 0x200

NLMSG_ERROR = 2
NLMSG_DONE = 3

RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18
RTM_SETLINK = 19
RTM_NEWADDR = 20
RTM_DELADDR = 21
RTM_GETADDR = 22
RTM_NEWROUTE = 24
RTM_DELROUTE = 25
RTM_GETROUTE = 26
RTM_NEWNEIGH = 28
RTM_DELNEIGH = 29
RTM_GETNEIGH = 30
RTM_NEWNETCONF = 80
RTM_DELNETCONF = 81
RTM_GETNETCONF = 82

_NLMSGERR_ATTR_MSG = 1
_NLA_TYPE_MASK = 0x3FFF
"""The two high bits say that an attribute is nested or in network byte order (linux/netlink.h)."""

_ATTRIBUTE = struct.Struct("=HH")
_ERRNO = struct.Struct("=i")


class Request(NamedTuple):
    """A message to be sent: its type, its flags besides NLM_F_REQUEST, and all after the header."""

    kind: int
    flags: int
    body: bytes

    def frame(self, sequence: int, more_flags: int = 0) -> bytes:
        flags = NLM_F_REQUEST | self.flags | more_flags
        return HEADER.pack(HEADER.size + len(self.body), self.kind, flags, sequence, 0) + self.body


class Message(NamedTuple):
    """A message as received; `port` is that of the socket whose request caused it, 0 for the kernel itself."""

    kind: int
    flags: int
    sequence: int
    body: memoryview
    port: int = 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """The kernel's reason for a refusal: an errno value, and its own words where it gave any (NETLINK_EXT_ACK)."""

    errno: int
    words: str = ""

    def __str__(self) -> str:
        meaning = os.strerror(self.errno)
        return f"{self.words} ({meaning})" if self.words else meaning

    def as_error(self) -> OSError:
        return OSError(self.errno, str(self))


def attribute(kind: int, payload: bytes) -> bytes:
    """Return one attribute, padded."""
    return _ATTRIBUTE.pack(4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def attributes(body: memoryview, start: int) -> dict[int, memoryview]:
    """Return the attributes from `start` on, by type.  ValueError when one reaches beyond the end."""
    found = {}
    end = len(body)
    while start + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(body, start)
        if length < 4 or start + length > end:
            raise ValueError(f"a netlink attribute of {length} bytes where {end - start} are left")
        found[kind & _NLA_TYPE_MASK] = body[start + 4 : start + length]
        start += (length + 3) & ~3
    return found


def messages(datagram: bytes) -> Iterator[Message]:
    """Yield the messages in what one receive returned.  ValueError when one reaches beyond the end."""
    view = memoryview(datagram)
    start = 0
    while start + HEADER.size <= len(view):
        length, kind, flags, sequence, port = HEADER.unpack_from(view, start)
        if length < HEADER.size or start + length > len(view):
            raise ValueError(f"a netlink message of {length} bytes where {len(view) - start} are left")
        yield Message(kind, flags, sequence, view[start + HEADER.size : start + length], port)
        start += (length + 3) & ~3


def refusal(message: Message) -> Refusal | None:
    """Read the refusal in an NLMSG_ERROR, or in the NLMSG_DONE that ends a dump; None for success.

    An error is followed by the header of the request (and, unless capped, by its body), only then by the
    kernel's words; the end of a dump by the words at once.
    """
    if len(message.body) < 4:
        return None
    (negative,) = _ERRNO.unpack_from(message.body)
    if negative == 0:
        return None
    words = ""
    if message.flags & _NLM_F_ACK_TLVS:
        start = 4
        if message.kind == NLMSG_ERROR:
            (length, *_) = HEADER.unpack_from(message.body, 4)
            start += HEADER.size if message.flags & _NLM_F_CAPPED else (length + 3) & ~3
        said = attributes(message.body, start).get(_NLMSGERR_ATTR_MSG, memoryview(b""))
        words = bytes(said).rstrip(b"\0").decode(errors="replace")
    return Refusal(-negative, words)
