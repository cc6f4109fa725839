"""A filter of one rule in a namespace, set by netlink: it needs no program, only nf_tables in the kernel.

The rule has a table of its own: removing the table undoes it, whatever else is in the namespace.
Sources: linux/netfilter/nf_tables.h for messages, attributes and expressions, linux/netfilter/nfnetlink.h for
the frame of a batch, linux/netfilter.h for the verdict.  Numbers in nf_tables attributes are big-endian.
"""

from __future__ import annotations

import enum
import errno
import socket
import struct
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address

from overlayd.host.netlink import wire
from overlayd.host.netlink.netns import in_netns
from overlayd.host.netlink.wire import Request, attribute

TABLE = b"sabotage\0"
_CHAIN = b"chain\0"

_NETLINK_NETFILTER = 12
_NESTED = 0x8000
_NFPROTO_IPV4 = 2
_NFNL_SUBSYS_NFTABLES = 10
_NFNL_MSG_BATCH_BEGIN, _NFNL_MSG_BATCH_END = 0x10, 0x11
_NFT_MSG_NEWTABLE, _NFT_MSG_DELTABLE, _NFT_MSG_NEWCHAIN, _NFT_MSG_NEWRULE = 0, 2, 3, 6
_APPEND = 0x800
"""NLM_F_APPEND."""

_NFT_REG_VERDICT, _NFT_REG_1 = 0, 1
_NFT_CMP_EQ, _NFT_CMP_GT = 0, 4
_NFT_META_LEN, _NFT_META_L4PROTO = 0, 16
_NF_DROP = 0
_NFT_NAT_SNAT, _NFT_NAT_DNAT = 0, 1


class FilterBase(enum.IntEnum):
    """The header at which a payload match starts (NFT_PAYLOAD_*_HEADER)."""

    NETWORK = 1
    TRANSPORT = 2


class Hook(enum.IntEnum):
    """The hook (NF_INET_*): which packets of the namespace the rule sees."""

    PREROUTING = 0
    INPUT = 1
    FORWARD = 2
    OUTPUT = 3
    POSTROUTING = 4


@dataclass(frozen=True, slots=True)
class DropAction:
    pass


@dataclass(frozen=True, slots=True)
class Masquerade:
    """The source becomes an address of this namespace; only in Hook.POSTROUTING."""


@dataclass(frozen=True, slots=True)
class Divert:
    """The destination becomes another; only in Hook.PREROUTING."""

    to: IPv4Address


@dataclass(frozen=True, slots=True)
class SetSource:
    """The source becomes another, or stays what it is whatever later rules say; only in Hook.POSTROUTING."""

    source: IPv4Address


@dataclass(frozen=True, slots=True)
class Rewrite:
    """These bytes, 16 at most, are written at this offset (bytes) of this header; no checksum is corrected."""

    base: FilterBase
    offset: int
    value: bytes


Verdict = DropAction | Masquerade | Divert | SetSource | Rewrite


@dataclass(frozen=True, slots=True)
class Match:
    """A condition of a rule, as its expressions: what is loaded into the register, and how it is compared."""

    load: bytes
    operator: int
    value: bytes

    def encode(self) -> bytes:
        compare = (
            attribute(1, _u32(_NFT_REG_1)) + attribute(2, _u32(self.operator)) + _nest(3, attribute(1, self.value))
        )
        return self.load + _expression(b"cmp", compare)


def field(base: FilterBase, offset: int, value: bytes) -> Match:
    """Match these bytes at this offset (bytes) of this header."""
    load = (
        attribute(1, _u32(_NFT_REG_1))
        + attribute(2, _u32(base))
        + attribute(3, _u32(offset))
        + attribute(4, _u32(len(value)))
    )
    return Match(_expression(b"payload", load), _NFT_CMP_EQ, value)


def source(address: IPv4Address) -> Match:
    return field(FilterBase.NETWORK, 12, address.packed)


def destination(address: IPv4Address) -> Match:
    return field(FilterBase.NETWORK, 16, address.packed)


def source_port(port: int) -> Match:
    return field(FilterBase.TRANSPORT, 0, struct.pack("!H", port))


def destination_port(port: int) -> Match:
    return field(FilterBase.TRANSPORT, 2, struct.pack("!H", port))


def icmp_type(kind: int) -> Match:
    return field(FilterBase.TRANSPORT, 0, bytes([kind]))


def protocol(number: int) -> Match:
    """Match the transport protocol, such as socket.IPPROTO_UDP."""
    return Match(_meta(_NFT_META_L4PROTO), _NFT_CMP_EQ, bytes([number]))


def longer_than(size: int) -> Match:
    """Match packets that are longer than `size` bytes, IP header included.

    The kernel keeps this number in host byte order; it is converted before the comparison.
    """
    turn = (
        attribute(1, _u32(_NFT_REG_1))
        + attribute(2, _u32(_NFT_REG_1))
        + attribute(3, _u32(1))  # NFT_BYTEORDER_HTON
        + attribute(4, _u32(4))
        + attribute(5, _u32(4))
    )
    return Match(_meta(_NFT_META_LEN) + _expression(b"byteorder", turn), _NFT_CMP_GT, _u32(size))


@dataclass(frozen=True, slots=True)
class FilterRule:
    """The action on the packets of a namespace that pass this hook and meet all conditions."""

    netns: str
    hook: Hook
    matches: tuple[Match, ...]
    verdict: Verdict

    @contextmanager
    def in_force(self) -> Generator[None, None, None]:
        """Keep the rule in place while open.  Raises OSError where the kernel refuses, as without nf_tables."""
        priority, kind = _PLACES[type(self.verdict)]
        place = attribute(1, _u32(self.hook)) + attribute(2, struct.pack("!i", priority))
        chain = attribute(1, TABLE) + attribute(3, _CHAIN) + _nest(4, place) + attribute(7, kind)
        expressions = b"".join(match.encode() for match in self.matches) + _encode(self.verdict)
        rule = attribute(1, TABLE) + attribute(2, _CHAIN) + _nest(4, expressions)
        _commit(
            self.netns,
            (_NFT_MSG_NEWTABLE, wire.NLM_F_CREATE, attribute(1, TABLE)),
            (_NFT_MSG_NEWCHAIN, wire.NLM_F_CREATE, chain),
            (_NFT_MSG_NEWRULE, wire.NLM_F_CREATE | _APPEND, rule),
        )
        try:
            yield
        finally:
            _commit(self.netns, (_NFT_MSG_DELTABLE, 0, attribute(1, TABLE)))


_PLACES: Mapping[type[Verdict], tuple[int, bytes]] = {
    DropAction: (0, b"filter\0"),
    Masquerade: (100, b"nat\0"),
    Divert: (-100, b"nat\0"),
    SetSource: (99, b"nat\0"),
    Rewrite: (-300, b"filter\0"),
}
"""Priority and type of the chain: NF_IP_PRI_FILTER, NF_IP_PRI_NAT_SRC, NF_IP_PRI_NAT_DST, one before
NF_IP_PRI_NAT_SRC, NF_IP_PRI_RAW (linux/netfilter_ipv4.h)."""


def _encode(verdict: Verdict) -> bytes:
    match verdict:
        case DropAction():
            code = _nest(2, attribute(1, struct.pack("!i", _NF_DROP)))
            return _expression(b"immediate", attribute(1, _u32(_NFT_REG_VERDICT)) + _nest(2, code))
        case Masquerade():
            return _expression(b"masq", b"")
        case Divert(address):
            return _translate(_NFT_NAT_DNAT, address)
        case SetSource(address):
            return _translate(_NFT_NAT_SNAT, address)
        case Rewrite(base, offset, value):
            write = (
                attribute(2, _u32(base))
                + attribute(3, _u32(offset))
                + attribute(4, _u32(len(value)))
                + attribute(5, _u32(_NFT_REG_1))
            )
            return _load(value) + _expression(b"payload", write)


def _translate(kind: int, address: IPv4Address) -> bytes:
    nat = attribute(1, _u32(kind)) + attribute(2, _u32(_NFPROTO_IPV4)) + attribute(3, _u32(_NFT_REG_1))
    return _load(address.packed) + _expression(b"nat", nat)


def _load(value: bytes) -> bytes:
    """Load a value into the register."""
    return _expression(b"immediate", attribute(1, _u32(_NFT_REG_1)) + _nest(2, attribute(1, value)))


def _meta(key: int) -> bytes:
    return _expression(b"meta", attribute(1, _u32(_NFT_REG_1)) + attribute(2, _u32(key)))


def _expression(name: bytes, data: bytes) -> bytes:
    return _nest(1, attribute(1, name + b"\0") + _nest(2, data))


def _nest(kind: int, data: bytes) -> bytes:
    return attribute(kind | _NESTED, data)


def _u32(value: int) -> bytes:
    return struct.pack("!I", value)


def _frame(family: int, resource: int) -> bytes:
    """Pack a struct nfgenmsg."""
    return struct.pack("!BBH", family, 0, resource)


def _commit(netns: str, *changes: tuple[int, int, bytes]) -> None:
    """Make all of the changes or none of them, in one transaction."""
    edge = _frame(socket.AF_UNSPEC, _NFNL_SUBSYS_NFTABLES)
    requests = [
        Request(_NFNL_MSG_BATCH_BEGIN, 0, edge),
        *(
            Request(_NFNL_SUBSYS_NFTABLES << 8 | kind, flags | wire.NLM_F_ACK, _frame(_NFPROTO_IPV4, 0) + body)
            for kind, flags, body in changes
        ),
        Request(_NFNL_MSG_BATCH_END, 0, edge),
    ]
    batch = b"".join(request.frame(number) for number, request in enumerate(requests, start=1))

    def call() -> None:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as sock:
            sock.settimeout(5)
            sock.send(batch)
            _read_acks(sock, len(changes))

    in_netns(netns, call)


def _read_acks(sock: socket.socket, wanted: int) -> None:
    while wanted:
        for message in wire.messages(sock.recv(1 << 16)):
            if message.kind != wire.NLMSG_ERROR:
                raise OSError(errno.EPROTO, f"nf_tables answers with a message of type {message.kind}")
            refusal = wire.refusal(message)
            if refusal is not None:
                raise refusal.as_error()
            wanted -= 1
