"""Both datapaths between real devices and sockets: every level of offload, what the path refuses, trouble."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address, IPv4Network
from threading import Thread

import pytest

from overlayd.host.netlink.netns import in_netns
from overlayd_backends.udp import device
from overlayd_backends.udp.device import Levels, TunOffload, attach_tun, open_udp
from overlayd_backends.udp.table import Table, TableEntry
from support.datapaths import IMPLEMENTATIONS, RunningDatapath, make_tun, running
from support.netns import ip, two_nodes
from support.packets import pattern

A, B = "10.244.1.0", "10.244.2.0"
PATIENCE = 10.0
"""Seconds for what takes milliseconds."""

both = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)


@pytest.fixture(scope="module")
def nodes() -> Iterator[tuple[str, str]]:
    """Two namespaces, each with a TUN device that nobody is attached to."""
    with two_nodes() as (a, b):
        make_tun(a, 1)
        make_tun(b, 2)
        yield a, b


@contextmanager
def two_datapaths(
    nodes: tuple[str, str], implementation: str, wanted: Levels | None = None
) -> Iterator[tuple[RunningDatapath, RunningDatapath]]:
    a, b = nodes
    with running(a, 1, implementation, wanted) as one, running(b, 2, implementation, wanted) as other:
        yield one, other


def udp_socket(netns: str, address: str = "", port: int = 0) -> socket.socket:
    def make() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.settimeout(PATIENCE)
        made.setsockopt(socket.SOL_SOCKET, device.SO_RCVBUFFORCE, 1 << 22)
        if address:
            made.bind((address, port))
        return made

    return in_netns(netns, make)


def send_stream(a: str, b: str, size: int) -> None:
    """A TCP connection from one namespace to the other; every byte arrives, and one answer comes back."""

    def listen() -> socket.socket:
        made = socket.socket()
        made.bind((B, 0))
        made.listen()
        made.settimeout(PATIENCE)
        return made

    def connect() -> socket.socket:
        return socket.create_connection((B, listener.getsockname()[1]), PATIENCE, (A, 0))

    content = pattern(60_000) * (size // 60_000 + 1)
    with in_netns(b, listen) as listener, in_netns(a, connect) as client:
        server, _ = listener.accept()

        def send() -> None:
            client.sendall(content[:size])
            client.shutdown(socket.SHUT_WR)

        sender = Thread(target=send)
        sender.start()
        with server:
            server.settimeout(PATIENCE)
            got = b"".join(iter(lambda: server.recv(1 << 16), b""))
            sender.join()
            assert got == content[:size]
            server.sendall(b"thanks")
        assert client.recv(10) == b"thanks"


def send_datagrams(a: str, b: str) -> None:
    """Datagrams of 1000 bytes in trains of 20, from a socket that leaves the cutting to the kernel."""
    with udp_socket(b, B) as receiver, udp_socket(a, A) as sender:
        sender.setsockopt(socket.IPPROTO_UDP, device.UDP_SEGMENT, 1000)
        for number in range(5):
            sender.sendto(pattern(20_000, number), receiver.getsockname())
            got = [receiver.recv(2000) for _ in range(20)]
            assert b"".join(got) == pattern(20_000, number)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE} s"
        time.sleep(0.01)


def is_quiet(node: RunningDatapath) -> bool:
    """Whether nothing is counted for a moment: counters that move are not read all at one instant."""
    before = node.counters()
    time.sleep(0.05)
    return node.counters() == before


# Levels of offload --------------------------------------------------------------------------------------------

LEVELS = {
    "all": Levels(),
    "no segmentation of UDP": Levels(tun=TunOffload.TSO),
    "no segmentation": Levels(tun=TunOffload.CHECKSUM),
    "nothing by the TUN": Levels(tun=TunOffload.NONE),
    "no UDP_SEGMENT": Levels(udp_segment=False),
    "no UDP_GRO": Levels(udp_gro=False),
    "nothing at all": Levels(TunOffload.NONE, udp_segment=False, udp_gro=False),
}


@both
@pytest.mark.parametrize("level", LEVELS)
def test_a_level_of_offload_is_used_and_none_above_it(
    nodes: tuple[str, str], implementation: str, level: str
) -> None:
    a, b = nodes
    wanted = LEVELS[level]
    with two_datapaths(nodes, implementation, wanted) as (sender, receiver):
        assert sender.attached.offloads == wanted.names
        send_stream(a, b, 2_000_000)
        wait_until(lambda: is_quiet(sender) and is_quiet(receiver), "the stream's last packets counted")
        stream = sender.counters(), receiver.counters()
        send_datagrams(a, b)
        wait_until(lambda: sender.since(stream[0])["tx_packets"] >= 100, "all of them counted as sent")
        wait_until(lambda: receiver.since(stream[1])["rx_packets"] >= 100, "all of them counted as received")
        datagrams = sender.since(stream[0]), receiver.since(stream[1])

    tcp, udp = wanted.tun >= TunOffload.TSO, wanted.tun >= TunOffload.USO
    assert (stream[0]["tx_superpackets"] > 0) == tcp
    assert (stream[1]["rx_superpackets"] > 0) == tcp
    assert datagrams[0].get("tx_superpackets", 0) == (5 if udp else 0)
    assert (datagrams[1].get("rx_superpackets", 0) > 0) == udp
    for sent, received in (stream, datagrams):
        assert (sent.get("tx_trains", 0) > 0) == wanted.udp_segment
        assert wanted.udp_segment or sent["tx_sends"] >= sent["tx_packets"]
        if wanted.udp_segment or not wanted.udp_gro:  # else the kernel might join what was sent one by one
            assert (received.get("rx_trains", 0) > 0) == wanted.udp_gro
    assert not any(sender.deaths + receiver.deaths)


@pytest.mark.parametrize(
    ("refused", "left"),
    [
        (device.TUN_F_USO4, TunOffload.TSO),
        (device.TUN_F_TSO4, TunOffload.CHECKSUM),
        (device.TUN_F_CSUM, TunOffload.NONE),
    ],
)
def test_a_kernel_that_refuses_a_level_is_asked_for_the_next(
    nodes: tuple[str, str], monkeypatch: pytest.MonkeyPatch, refused: int, left: TunOffload
) -> None:
    real = fcntl.ioctl

    def ioctl(fd: int, request: int, argument: int | bytes) -> object:
        if request == device.TUNSETOFFLOAD and isinstance(argument, int) and argument & refused:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(fd, request, argument)

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    fd, level = in_netns(nodes[0], lambda: attach_tun("ovl.udp", TunOffload.USO))
    os.close(fd)
    assert level is left


@pytest.mark.parametrize("option", ["UDP_SEGMENT", "UDP_GRO"])
def test_a_socket_option_that_the_kernel_does_not_know_is_done_without(
    nodes: tuple[str, str], monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.setattr(device, option, 9999)
    opened, levels = in_netns(nodes[0], lambda: open_udp(IPv4Address("10.99.0.1"), 8285, Levels()))
    opened.close()
    assert levels == Levels(udp_segment=option != "UDP_SEGMENT", udp_gro=option != "UDP_GRO")


# What the path refuses, and what has no way ------------------------------------------------------------------


@both
def test_the_mtu_of_a_narrow_path_is_found(nodes: tuple[str, str], implementation: str) -> None:
    """A route that takes 1200 bytes stands for a link far away that does, once the kernel has learned of it."""
    a, b = nodes
    with two_datapaths(nodes, implementation) as (sender, _), ExitStack() as stack:
        ip(a, "route add 10.99.0.2/32 dev eth0 mtu 1200")
        stack.callback(ip, a, "route flush cache")  # what was learned
        stack.callback(ip, a, "route delete 10.99.0.2/32")
        with udp_socket(a, A) as near, udp_socket(b, B) as far:
            near.connect(far.getsockname())
            near.setsockopt(socket.IPPROTO_IP, device.IP_MTU_DISCOVER, device.IP_PMTUDISC_DO)
            before = sender.counters()
            near.send(pattern(1400))
            wait_until(lambda: sender.counters()["icmp_sent"] > before["icmp_sent"], "fragmentation needed")
            assert near.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EMSGSIZE
            with pytest.raises(OSError, match="too long"):
                near.send(pattern(1400))
            assert near.getsockopt(socket.IPPROTO_IP, 14) == 1200 - 28  # IP_MTU
            assert sender.since(before) == {"tx_sends": 1, "drop_too_big": 1, "icmp_sent": 1}
            near.send(pattern(1200 - 56))
            assert far.recv(2000) == pattern(1200 - 56)

            before = sender.counters()
            near.setsockopt(socket.IPPROTO_IP, device.IP_MTU_DISCOVER, device.IP_PMTUDISC_DONT)
            near.send(pattern(1400, 1))
            assert far.recv(2000) == pattern(1400, 1)
            assert sender.since(before).get("drop_too_big", 0) == 0
        send_stream(a, b, 500_000)


@both
def test_a_sender_learns_that_nobody_has_the_address(nodes: tuple[str, str], implementation: str) -> None:
    with running(nodes[0], 1, implementation), udp_socket(nodes[0], A) as near:
        near.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR of linux/in.h: tell of what may pass, too
        near.connect(("10.244.9.9", 5000))
        near.send(b"anybody?")
        with pytest.raises(OSError) as told:
            near.recv(100)
        assert told.value.errno == errno.ENETUNREACH


# Trouble -------------------------------------------------------------------------------------------------------


@both
def test_an_underlay_that_is_down_for_a_while_ends_nothing(nodes: tuple[str, str], implementation: str) -> None:
    a, b = nodes
    with two_datapaths(nodes, implementation) as (sender, _), udp_socket(a, A) as near, udp_socket(b, B) as far:
        ip(a, "link set eth0 down")
        try:
            before = sender.counters()
            near.sendto(b"lost", far.getsockname())
            wait_until(lambda: sender.since(before).get("send_failed", 0) > 0, "send_failed")
        finally:
            ip(a, "link set eth0 up")

        def comes_through() -> bool:
            near.sendto(b"found", far.getsockname())
            far.settimeout(0.1)
            try:
                return far.recv(10) == b"found"
            except TimeoutError:
                return False

        wait_until(comes_through, "traffic after the underlay came back")
        assert not sender.deaths


@both
def test_a_device_that_is_down_for_a_while_ends_nothing(nodes: tuple[str, str], implementation: str) -> None:
    a, b = nodes
    with two_datapaths(nodes, implementation) as (_, receiver), udp_socket(a, A) as near:
        ip(b, "link set ovl.udp down")
        try:
            before = receiver.counters()
            near.sendto(b"lost", (B, 9))
            wait_until(lambda: receiver.since(before).get("write_failed", 0) > 0, "write_failed")
        finally:
            ip(b, "link set ovl.udp up")
            ip(b, "route add 10.244.0.0/16 dev ovl.udp")
        send_stream(a, b, 10_000)
        assert not receiver.deaths


@both
def test_a_device_that_is_gone_ends_the_thread(implementation: str) -> None:
    with two_nodes() as (a, _):
        make_tun(a, 1)
        with running(a, 1, implementation) as found:
            ip(a, "link delete ovl.udp")
            wait_until(lambda: len(found.deaths) > 0, "the end of a thread")
        assert all(isinstance(death, OSError) for death in found.deaths)


def test_what_cannot_be_opened_is_named(nodes: tuple[str, str]) -> None:
    local = IPv4Address("10.99.0.1")

    def attach(name: str) -> Callable[[], object]:
        return lambda: attach_tun(name, TunOffload.USO)

    with running(nodes[0], 1, "python"):
        with pytest.raises(OSError, match=r"UDP port 8285 of 10\.99\.0\.1.*in use"):
            in_netns(nodes[0], lambda: open_udp(local, 8285, Levels()))
        with pytest.raises(OSError, match=r"TUN device ovl\.udp.*busy"):
            in_netns(nodes[0], attach("ovl.udp"))
    with pytest.raises(OSError, match=r"UDP port 8285 of 10\.99\.0\.9.*assign"):
        in_netns(nodes[0], lambda: open_udp(IPv4Address("10.99.0.9"), 8285, Levels()))
    with pytest.raises(OSError, match=r"TUN device ovl\.none"):
        in_netns(nodes[0], attach("ovl.none"))
    with pytest.raises(OSError, match="TUN device eth0"):
        in_netns(nodes[0], attach("eth0"))


# A large table that changes ----------------------------------------------------------------------------------


def large_table(own: int, peer: int, first_other: str) -> Table:
    """The table of a node with 10,000 peers, one of which is there."""
    others = IPv4Address(first_other)
    entries = [
        TableEntry(IPv4Network((int(others) + 256 * n, 24)), IPv4Address("10.99.1.1") + n, 8285)
        for n in range(9999)
    ]
    there = TableEntry(IPv4Network(f"10.244.{peer}.0/24"), IPv4Address(f"10.99.0.{peer}"), 8285)
    return Table((IPv4Network(f"10.244.{own}.0/24"),), (*entries, there))


@both
def test_a_table_of_10000_peers_replaced_50_times_loses_nothing(
    nodes: tuple[str, str], implementation: str
) -> None:
    """The peers around the one that is there change, so its entry is now the first of all and now the last."""
    a, b = nodes
    tables = [large_table(1, 2, first).packed() for first in ("11.0.0.0", "9.0.0.0")]
    with (
        two_datapaths(nodes, implementation) as (sender, receiver),
        udp_socket(a, A) as near,
        udp_socket(b, B) as far,
    ):
        before = sender.counters()
        number = 0
        for turn in range(60):
            sender.attached.loop.replace(tables[turn % 2])
            for _ in range(20):  # as many as are surely on their way while the table is taken up
                near.sendto(struct.pack("!I", number), far.getsockname())
                number += 1
                time.sleep(0.0005)
        got = [struct.unpack("!I", far.recv(10))[0] for _ in range(number)]
        assert got == list(range(number))
        counted = sender.since(before)
        assert counted["tables"] >= 50
        assert counted["tx_packets"] >= number
        assert not any(name.startswith(("drop_", "send_")) for name in counted)
        assert receiver.counters()["rx_packets"] >= number
