"""Both datapaths, for tests that hold them to the same rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from ipaddress import IPv4Address

import pytest

from overlayd_backends.udp.engine import Engine, PythonEngine
from overlayd_backends.udp.table import Entry, Table
from support.packets import NODES, take_apart

IMPLEMENTATIONS = ("python", "c")

MakeEngine = Callable[[bool, bool, bool, bool], Engine]


def engine_class(implementation: str) -> MakeEngine:
    """Skips the test where the C one was not built."""
    if implementation == "python":
        return PythonEngine
    try:
        extension = import_module("overlayd_backends.udp._datapath")
    except ImportError as error:
        pytest.skip(f"needs the C datapath, which is built by `pip install` where a compiler is: {error}")
    made: MakeEngine = extension.Engine
    return made


def table_of(node: int, port: int = 8285) -> Table:
    """The table of one of the three nodes."""
    entries = [
        Entry(prefix, IPv4Address(f"10.99.0.{number}"), port) for number, prefix in NODES.items() if number != node
    ]
    return Table((NODES[node],), tuple(entries))


def engine_of(
    node: int, implementation: str, options: tuple[bool, bool, bool, bool] = (True, True, True, True)
) -> Engine:
    """The engine of one of the three nodes."""
    engine = engine_class(implementation)(*options)
    engine.replace(table_of(node).packed())
    return engine


def cut(implementation: str, frames: Iterable[bytes], tun_offload: bool = True) -> list[bytes]:
    """The packets that leave node 1 when these frames are read from its TUN device, in order."""
    engine = engine_of(1, implementation, (tun_offload, True, True, True))
    sends, _ = engine.outgoing(list(frames), 0.0)
    return [packet for _, _, size, payload in sends for packet in take_apart(size, payload)]


def without_id(packet: bytes) -> bytes:
    """A packet that may not be fragmented without its id, which means nothing (RFC 6864)."""
    if packet[6] & 0x40:
        return packet[:4] + b"\0\0" + packet[6:10] + b"\0\0" + packet[12:]
    return packet
