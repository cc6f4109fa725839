"""ICMP echo as bytes (RFC 792), for a raw socket: it sends without an IP header, and receives with one."""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address

_HEADER = struct.Struct("!BBHHH")
"""Type, code, checksum, identifier, sequence number."""


class IcmpType(enum.IntEnum):
    """ICMP message types (RFC 792)."""

    REPLY = 0
    REQUEST = 8


@dataclass(frozen=True, slots=True)
class Echo:
    """An echo request or reply from `source`."""

    kind: IcmpType
    source: IPv4Address
    payload: bytes


def checksum(data: bytes) -> int:
    """Compute the Internet checksum (RFC 1071)."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def echo_request(identifier: int, sequence: int, payload: bytes) -> bytes:
    blank = _HEADER.pack(IcmpType.REQUEST, 0, 0, identifier, sequence) + payload
    return _HEADER.pack(IcmpType.REQUEST, 0, checksum(blank), identifier, sequence) + payload


def find_echo(packet: bytes) -> Echo | None:
    """Find the echo in what a raw socket received, IP header (RFC 791) first; None where there is none."""
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return None
    message = packet[(packet[0] & 0x0F) * 4 :]
    if len(message) < _HEADER.size or message[0] not in (IcmpType.REPLY, IcmpType.REQUEST):
        return None
    return Echo(IcmpType(message[0]), IPv4Address(packet[12:16]), message[_HEADER.size :])
