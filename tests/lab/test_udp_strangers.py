"""Who else speaks to the udp backend's port: a flannel node, which is a peer, and somebody who sends rubbish."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from support.lab import Labs
from support.udp_lab import UdpLab, until

FLANNEL = "10.99.0.200"
UNDERLAY = ("10.99.0.1", "10.99.0.2")
"""The nodes that are flooded: one runs the C datapath, one Python's."""


@pytest.fixture(scope="module")
def lab(labs: Labs) -> UdpLab:
    return UdpLab(labs)


PEER = """
import socket, struct

def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("10.99.0.200", 8285)); print("ready", flush=True)
while True:
    packet, (sender, port) = s.recvfrom(65535)
    (first, _, length, _, _, ttl, protocol, _, source, target) = struct.unpack_from("!BBHHHBBH4s4s", packet)
    print(sender, port, hex(first), length == len(packet), ttl, checksum(packet[:20]), flush=True)
    there, back, size, _ = struct.unpack_from("!HHHH", packet, 20)
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, length, 7, 0, 64, protocol, 0, target, source)
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    s.sendto(head + struct.pack("!HHHH", back, there, size, 0) + packet[28:], (sender, 8285))
"""
"""A node as flannel's udp backend would have it, with one pod that sends back what it gets: the bare IPv4 packet
is all that the datagram holds."""

ECHO = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5); s.connect((sys.argv[1], 7))
s.send(b"hello, flannel"); print(s.recv(99).decode())
"""
ETCD = """
import sys, urllib.request
request = urllib.request.Request("http://10.99.255.1:2379/v3/kv/" + sys.argv[1], sys.argv[2].encode())
urllib.request.urlopen(request, timeout=5).read()
"""


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@contextmanager
def flannel_node(lab: UdpLab, subnet: str) -> Iterator[None]:
    """A record such as flannel's udp backend writes, which names no backend, and the host that it tells of."""
    record = {"PublicIP": FLANNEL, "PublicIPv6": None}
    key = {"key": _base64(f"/coreos.com/network/subnets/{subnet.replace('/', '-')}")}
    value = {"value": _base64(json.dumps(record, separators=(",", ":")))}
    lab.shell(
        None,
        "ip netns add flannel; ip link add flannel type veth peer name eth0 netns flannel; "
        f"ip link set flannel master underlay up; ip -n flannel address add {FLANNEL}/16 dev eth0; "
        "ip -n flannel link set eth0 up",
    )
    lab.python(None, ETCD, "put", json.dumps(key | value))
    try:
        yield
    finally:
        lab.python(None, ETCD, "deleterange", json.dumps(key))
        lab.shell(None, "ip netns delete flannel")


def test_a_flannel_node_is_a_peer(lab: UdpLab) -> None:
    held = {lab.subnet(node) for node in lab.nodes}
    subnet = next(f"10.244.{n}.0/24" for n in range(100, 200) if f"10.244.{n}.0/24" not in held)

    def is_peer() -> bool:
        return all(
            any(peer.subnet == subnet and not peer.reason for peer in lab.answer(node).status.peers)
            for node in lab.nodes
        )

    with flannel_node(lab, subnet):
        until(is_peer)
        with lab.serving("flannel", PEER) as peer:
            for number in (1, 2):
                pod = subnet.replace(".0/24", ".2")
                assert lab.python(f"pod{number}-1", ECHO, pod) == "hello, flannel\n"
                heard = peer.readline()
                assert heard == f"10.99.0.{number} 8285 0x45 True 63 0\n", "one hop, and nothing but the packet"
    until(lambda: all(subnet not in {p.subnet for p in lab.answer(node).status.peers} for node in lab.nodes))


FLOOD = """
import random, socket, struct, sys, time
UDP_SEGMENT = 103
chance = random.Random(1)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
trains = []
for size in (1, 19, 20, 28, 60, 999, 1400):
    trains.append((size, chance.randbytes(size * 40)))
    trains.append((size, (b"\\x45" + chance.randbytes(size - 1)) * 40))
sent, end = 0, time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    for size, train in trains:
        for target in sys.argv[2:]:
            s.sendmsg([train], [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("H", size))], 0, (target, 8285))
            sent += 40
print(sent)
"""
SERVE = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("", 7200)); print("ready", flush=True)
while True:
    s.sendto(*s.recvfrom(99))
"""
ASK = """
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(0.05); s.connect((sys.argv[1], 7200))
answers, end = 0, time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    question = str(time.monotonic()).encode()
    s.send(question)
    try:
        while s.recv(99) != question:
            pass
        answers += 1
    except TimeoutError:
        pass
print(answers)
"""
MEMORY = """
import pathlib, sys
for entry in pathlib.Path("/proc").glob("[0-9]*"):
    words = (entry / "cmdline").read_bytes().split(b"\\0")
    if b"overlayd" in words and b"run" in words and sys.argv[1].encode() in words:
        print((entry / "status").read_text().split("VmRSS:")[1].split()[0])
"""
"""kB of the daemon of this node."""


@pytest.mark.parametrize("source", [None, "node3"])
def test_rubbish_at_full_rate_is_dropped_counted_and_harms_nobody(lab: UdpLab, source: str | None) -> None:
    """From a stranger on the underlay, and from a peer, whose rubbish is looked at more closely."""
    before = {node: lab.datapath(node) for node in ("node1", "node2")}
    memory = {node: int(lab.python(None, MEMORY, node)) for node in before}
    with lab.serving("pod2-1", SERVE), lab.start_python(source, FLOOD, 2.5, *UNDERLAY) as flood:
        answered = int(lab.python("pod1-1", ASK, lab.addresses["pod2-1"], 1.5))
        assert flood.poll() is None, "it was over before the questions were"
        sent, complained = flood.communicate(timeout=30)
        assert int(sent) > 10_000, complained
        assert answered > 2, "what is sound goes on"
    reasons = ("unknown_sender",) if source is None else ("truncated", "bad_header")
    for node, earlier in before.items():
        datapath = lab.datapath(node)
        assert all(datapath.drops[reason] > earlier.drops[reason] + 1_000 for reason in reasons), datapath.drops
        assert datapath.trouble == earlier.trouble, "its threads live on"
        grown = int(lab.python(None, MEMORY, node)) - memory[node]
        assert grown < 30_000, f"{node} grew by {grown} kB"
    until(lab.works)
