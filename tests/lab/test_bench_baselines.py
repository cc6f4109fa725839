"""The baselines of the bench are what they claim to be, and no daemon has any work with the packets."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Generator

import pytest

from overlayd.bench import tools
from overlayd.bench.baselines import LOOP_DEVICE, VXLAN_DEVICE
from overlayd.bench.labs import add_peers, built
from overlayd.bench.measuring import try_rate
from overlayd.bench.model import Mode
from overlayd.bench.search import FULL_SPEED
from overlayd.bench.tools import COMPILER, Tools
from overlayd.bench.topology import BenchTopology
from overlayd.lab.model import LabNode
from support.lab import require_namespaces

DEVICES = {
    Mode.VXLAN_PLAIN: VXLAN_DEVICE,
    Mode.NAT_PLAIN: VXLAN_DEVICE,
    Mode.FLANNEL_LIKE: LOOP_DEVICE,
    Mode.PLAIN: LOOP_DEVICE,
}
HOPS = {Mode.VXLAN_PLAIN: 2, Mode.NAT_PLAIN: 2, Mode.PLAIN: 2, Mode.FLANNEL_LIKE: 4}
"""How often the TTL is counted down on the way: by each node, and by flannel's loop on each node once more."""
PACKETS = 200
SEE_TTL = """
import socket
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.IPPROTO_IP, 12, 1)  # IP_RECVTTL of linux/in.h
sock.bind(("", 9100))
print("ready", flush=True)
_, found, _, _ = sock.recvmsg(100, 100)
print("ttl", int.from_bytes(found[0][2], "little"), flush=True)
"""
SEND_ONE = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 64)
sock.sendto(b"x", (sys.argv[1], 9100))
"""


@pytest.fixture(scope="module")
def programs() -> Generator[Tools]:
    require_namespaces()
    if shutil.which(COMPILER) is None:
        pytest.skip(f"needs {COMPILER}")
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        pytest.skip("needs root: /dev/net/tun is not for everyone here")
    with tools.compiled() as made:
        yield made


def received(topology: BenchTopology, device: str) -> int:
    """Packets that the target's node got by this device."""
    counter = f"/sys/class/net/{device}/statistics/rx_packets"
    return int(topology.run(topology.target.node.name, ["cat", counter]))


def ttl_at_the_target(topology: BenchTopology) -> int:
    with topology.running(topology.target.name, [sys.executable, "-c", SEE_TTL], "ready") as seen:
        topology.run(topology.source.name, [sys.executable, "-c", SEND_ONE, topology.target_address])
    return int(seen.output.split()[-1])


def vxlan_device(topology: BenchTopology, name: str) -> dict[str, object]:
    """What the kernel says of a vxlan device, without the name, and addresses of the node."""
    words = ["ip", "-d", "-j", "link", "show", "dev", name]
    [link] = json.loads(topology.run(topology.source.node.name, words))
    return {key: link[key] for key in ("mtu", "qdisc", "gso_max_size", "gro_max_size", "num_tx_queues")} | {
        "kind": link["linkinfo"]["info_data"]
    }


@pytest.mark.parametrize("mode", DEVICES)
def test_packets_take_the_baseline_and_it_does_its_work(programs: Tools, mode: Mode) -> None:
    with built(mode, programs) as topology:
        before = received(topology, DEVICES[mode])
        trial = try_rate(topology, 64, 1000, PACKETS / 1000)
        assert trial.received > 0
        assert received(topology, DEVICES[mode]) - before >= trial.received
        assert ttl_at_the_target(topology) == 64 - HOPS[mode]
        rules = topology.run(topology.target.node.name, ["nft", "list", "ruleset"])
        assert rules.count("masquerade") == (mode is Mode.NAT_PLAIN)
        assert bool(rules) == (mode is Mode.NAT_PLAIN)


def test_the_device_made_by_hand_is_like_ours(programs: Tools) -> None:
    with built(Mode.VXLAN, programs) as ours, built(Mode.VXLAN_PLAIN, programs) as by_hand:
        assert vxlan_device(ours, "ovl.1") == vxlan_device(by_hand, VXLAN_DEVICE)
        for place, device in (ours.source.name, "eth0"), (ours.source.node.name, "cni0"):
            sizes = [each.run(place, ["cat", f"/sys/class/net/{device}/mtu"]) for each in (ours, by_hand)]
            assert sizes[0] == sizes[1]
        assert "counter name" in ours.run(ours.source.node.name, ["nft", "list", "table", "inet", "overlayd"])


def test_peers_that_do_not_exist_are_in_the_sets(programs: Tools) -> None:
    with built(Mode.VXLAN, programs) as topology:
        add_peers(topology, 50)
        listed = topology.run(topology.target.node.name, ["nft", "list", "table", "inet", "overlayd"])
        assert listed.count(" . ") >= 2 * 51
        assert try_rate(topology, 64, 1000, 0.1).received > 0


def test_packets_that_flow_wake_no_daemon(programs: Tools) -> None:
    with built(Mode.VXLAN, programs) as topology:
        for node in topology.spec.all_nodes:
            settled(topology, node)
        before = {node: passes(topology, node) for node in topology.spec.all_nodes}
        woken = {node: wakeups(topology, node) for node in topology.spec.all_nodes}
        trial = try_rate(topology, 64, FULL_SPEED, 3.0)
        for node, number in woken.items():
            # it wakes some thirty times a second for etcd and systemd, whether packets flow or not
            assert (wakeups(topology, node) - number) * 20 < trial.received
            assert passes(topology, node) == before[node]


def settled(topology: BenchTopology, node: LabNode) -> None:
    """Wait until the daemon has looked at all that changed while the lab was made."""
    for _ in range(30):
        before = passes(topology, node)
        time.sleep(2)
        if passes(topology, node) == before:
            return
    raise AssertionError(f"{node.name} does not come to rest")


def passes(topology: BenchTopology, node: LabNode) -> int:
    """How often the daemon compared desired and actual state, but for its timer."""
    answer = topology.status(node)
    assert answer is not None
    done = answer.status.reconciler
    return done.passes - done.reasons.get("resync", 0)


def wakeups(topology: BenchTopology, node: LabNode) -> int:
    """How often the daemon's threads went to sleep (proc_pid_status(5)), and so were woken."""
    script = """
        for pid in $(ip netns pids "$0"); do
            tr "\\0" " " < "/proc/$pid/cmdline" | grep -q "overlayd run" && cat /proc/$pid/task/*/status
        done; :
    """
    lines = topology.run(None, ["sh", "-c", script, node.name]).splitlines()
    counts = [int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches")]
    assert counts
    return sum(counts)
