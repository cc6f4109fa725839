"""Both datapaths, for tests that hold them to the same rules."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from importlib import import_module
from ipaddress import IPv4Address
from threading import Thread

import pytest

from overlayd.core.kernel.datapath import Datapath
from overlayd.host.netlink.netns import in_netns
from overlayd_backends.udp.device import Levels
from overlayd_backends.udp.engine import Engine, PythonEngine
from overlayd_backends.udp.implementation import Attached, choose_implementation
from overlayd_backends.udp.table import Table, TableEntry
from support.netns import ip, run
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
        TableEntry(prefix, IPv4Address(f"10.99.0.{number}"), port)
        for number, prefix in NODES.items()
        if number != node
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


# Running ones --------------------------------------------------------------------------------------------------


@dataclass
class RunningDatapath:
    """A datapath that runs in a namespace; `deaths` says what its threads died of."""

    netns: str
    attached: Attached
    deaths: list[OSError] = field(default_factory=list)

    def counters(self) -> dict[str, int]:
        return self.attached.loop.counters()

    def since(self, before: dict[str, int]) -> dict[str, int]:
        """What was counted since then, where anything was."""
        return {name: count - before[name] for name, count in self.counters().items() if count != before[name]}


def make_tun(netns: str, node: int) -> None:
    """The device of one of the three nodes, and the route into it."""
    run(f"ip netns exec {netns} sysctl -qw net.ipv6.conf.default.disable_ipv6=1")
    ip(netns, "tuntap add ovl.udp mode tun")
    ip(netns, "link set ovl.udp mtu 1472 up")
    ip(netns, f"address add 10.244.{node}.0/32 dev ovl.udp")
    ip(netns, "route add 10.244.0.0/16 dev ovl.udp")


@contextmanager
def running(netns: str, node: int, implementation: str, wanted: Levels | None = None) -> Iterator[RunningDatapath]:
    """The datapath of one of the three nodes, in a namespace that has its device and its underlay address."""
    engine_class(implementation)  # skips where there is none
    chosen = replace(choose_implementation(implementation), wanted=wanted or Levels())
    datapath = Datapath("ovl.udp", IPv4Address(f"10.99.0.{node}"), 8285, (NODES[node],))
    stop_fd = os.eventfd(0)
    with ExitStack() as stack:
        stack.callback(os.close, stop_fd)
        attached = in_netns(netns, lambda: stack.enter_context(chosen.attach(datapath, stop_fd)))
        attached.loop.replace(table_of(node).packed())
        found = RunningDatapath(netns, attached)

        def live(call: Callable[[], None]) -> None:
            try:
                in_netns(netns, call)
            except OSError as error:
                found.deaths.append(error)

        threads = [Thread(target=live, args=(call,)) for call in (attached.loop.run_tx, attached.loop.run_rx)]
        for thread in threads:
            thread.start()
        try:
            yield found
        finally:
            os.eventfd_write(stop_fd, 1)
            for thread in threads:
                thread.join(10)
            assert not any(thread.is_alive() for thread in threads), "a thread did not stop"
