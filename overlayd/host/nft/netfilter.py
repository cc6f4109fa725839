"""Cheap nf_tables queries and events over netlink, to avoid spawning nft.

The kernel counts the transactions of a namespace, whoever makes them: as long as this number, the generation, is
the same, the table is as it was listed.  Sources: linux/netfilter/nfnetlink.h for the frame, nf_tables.h beside it
for messages and attributes.  Numbers in nf_tables attributes are big-endian.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Generator
from contextlib import contextmanager

from overlayd.core.firewall.nftables import TABLE
from overlayd.host.netlink import wire
from overlayd.host.netlink.connection import open_socket
from overlayd.host.netlink.netns import in_netns
from overlayd.host.netlink.wire import Message, Request

NETLINK_NETFILTER = 12
NFNLGRP_NFTABLES = 7
"""The protocol, and the group that hears of changes in nf_tables: linux/netlink.h, linux/netfilter/nfnetlink.h."""

_NFNL_SUBSYS_NFTABLES = 10
NFPROTO_INET = 1
NFPROTO_IPV4 = 2
"""linux/netfilter/nfnetlink.h, linux/netfilter.h."""

_GET_TABLE = 1
_TABLE_EVENTS = (0, 2)
_CHAIN_AT = {3: 3, 5: 3, 6: 2, 8: 2}
"""In the events of new and deleted chains and rules, the attribute that names the chain: NFTA_CHAIN_NAME,
NFTA_RULE_CHAIN."""
_NEW_GENERATION = 15
_GET_GENERATION = 16
_GET_OBJECT = 19
_OBJECT_COUNTER = 1
"""linux/netfilter/nf_tables.h: NFT_MSG_*, NFT_OBJECT_COUNTER."""

_NFGENMSG = struct.Struct("!BBH")
"""struct nfgenmsg: family, version, resource."""

_ABSENT = {errno.EINVAL, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT}
"""How a kernel without nf_tables answers."""
_ANSWER = 1 << 16
_PATIENCE = 5.0
"""Seconds.  The kernel answers while it is being asked, so this is never waited for but in a broken one."""


class Netfilter:
    """The nf_tables of one network namespace; None for an answer means that there is no such thing."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sequence = 0

    def find_generation(self) -> int | None:
        """Find the generation of the ruleset; None where the kernel has no nf_tables."""
        try:
            answer = self._ask(_GET_GENERATION, b"")
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise
        return _number(answer, 1) if answer is not None else None  # NFTA_GEN_ID

    def find_table_flags(self, family: int = NFPROTO_INET, name: str = TABLE) -> int | None:
        """Find NFT_TABLE_F_* of a table, ours if none is named; 0 for one that is as it should be."""
        answer = self._ask(_GET_TABLE, wire.attribute(1, _text(name)), family)  # NFTA_TABLE_NAME
        return _number(answer, 2) if answer is not None else None  # NFTA_TABLE_FLAGS

    def find_packets(self, counter: str) -> int | None:
        """Find the packets that a counter of our table has counted."""
        question = (
            wire.attribute(1, _text(TABLE))  # NFTA_OBJ_TABLE, _NAME, _TYPE
            + wire.attribute(2, _text(counter))
            + wire.attribute(3, struct.pack("!I", _OBJECT_COUNTER))
        )
        answer = self._ask(_GET_OBJECT, question)
        if answer is None:
            return None
        data = wire.attributes(answer.body, _NFGENMSG.size)[4]  # NFTA_OBJ_DATA
        return int.from_bytes(wire.attributes(data, 0)[2])  # NFTA_COUNTER_PACKETS

    def _ask(self, kind: int, attributes: bytes, family: int = NFPROTO_INET) -> Message | None:
        self._sequence += 1
        body = _NFGENMSG.pack(family, 0, 0) + attributes
        self._sock.send(Request(_NFNL_SUBSYS_NFTABLES << 8 | kind, 0, body).frame(self._sequence))
        while True:
            for message in wire.messages(self._sock.recv(_ANSWER)):
                if message.sequence != self._sequence:
                    continue  # the answer to a question that was broken off
                if message.kind != wire.NLMSG_ERROR:
                    return message
                refused = wire.refusal(message)
                if refused is None or refused.errno == errno.ENOENT:
                    return None
                raise refused.as_error()


def _number(message: Message, kind: int) -> int:
    return int.from_bytes(wire.attributes(message.body, _NFGENMSG.size)[kind])


def is_about_our_table(message: Message) -> bool:
    """Tell whether an event is about our table or something in it.  In all of them but the one that ends a
    transaction the first attribute is the name of the table."""
    return _is_within(message, NFPROTO_INET, TABLE)


def is_about_chain(message: Message, family: int, table: str, chain: str) -> bool:
    """Tell whether an event is about this chain, a rule in it, or the whole table."""
    if not _is_within(message, family, table):
        return False
    place = _CHAIN_AT.get(message.kind & 0xFF)
    if place is None:
        return message.kind & 0xFF in _TABLE_EVENTS
    return bytes(wire.attributes(message.body, _NFGENMSG.size).get(place, b"")) == _text(chain)


def _is_within(message: Message, family: int, table: str) -> bool:
    if message.kind >> 8 != _NFNL_SUBSYS_NFTABLES or message.kind & 0xFF == _NEW_GENERATION:
        return False
    said, _, _ = _NFGENMSG.unpack_from(message.body)
    return said == family and bytes(wire.attributes(message.body, _NFGENMSG.size).get(1, b"")) == _text(table)


def _text(name: str) -> bytes:
    return name.encode() + b"\0"


@contextmanager
def open_netfilter(netns: str | None) -> Generator[Netfilter | None, None, None]:
    """Open netfilter; None where the kernel has none at all."""
    try:
        sock = in_netns(netns, lambda: open_socket(NETLINK_NETFILTER))
    except OSError as error:
        if error.errno != errno.EPROTONOSUPPORT:
            raise
        yield None
        return
    with sock:
        sock.bind((0, 0))
        sock.settimeout(_PATIENCE)
        yield Netfilter(sock)
