"""The program `overlayd` on the nodes of a lab: what it leaves, what it takes away, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator

import pytest

from overlayd.lab.control import Ask
from overlayd.lab.launcher import HeldLab, launched
from overlayd.lab.model import LabSpec
from support.lab import OVERLAYD, require_namespaces, run_inside

PATIENCE = 30


@pytest.fixture(scope="module")
def lab() -> Generator[HeldLab]:
    """A lab of these tests' own, as they take its daemons apart.  Its three nodes want the only three subnets."""
    require_namespaces()
    spec = LabSpec(name=f"process-{os.getpid()}", nodes=3, network="10.244.0.0/22")
    with launched(spec, lambda _: None) as held:
        yield held


def out(lab: HeldLab, where: str, command: str) -> str:
    done = run_inside(lab, where, *command.split())
    assert done.returncode == 0, done.stderr
    return done.stdout


def kernel(lab: HeldLab, node: str) -> set[str]:
    """All that was put into a node's network, a line each."""
    links = out(lab, node, "ip -o link") + out(lab, node, "ip -o address")
    routes = out(lab, node, "ip -N route show table all") + out(lab, node, "ip rule")
    neighbours = out(lab, node, "ip neigh show nud permanent") + out(lab, node, "bridge fdb")
    return set((links + routes + neighbours).splitlines())


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.1)


def is_healthy(lab: HeldLab, node: str) -> bool:
    return run_inside(lab, node, "overlayd", "status").returncode == 0


def tell(lab: HeldLab, ask: Ask, node: str) -> None:
    lab.lab.ask(ask, node)


def test_three_daemons_race_for_three_subnets(lab: HeldLab) -> None:
    subnets = {node.subnet for node in lab.snapshot.nodes}
    assert subnets == {f"10.244.{n}.0/24" for n in (1, 2, 3)}


def test_a_second_daemon_on_a_node_is_refused_with_the_first_ones_name(lab: HeldLab) -> None:
    done = run_inside(lab, "node1", *OVERLAYD, "run", "--state-dir", "/run/other", "--run-dir", "/run/other")
    assert done.returncode == 1
    assert "another overlayd (process" in done.stderr
    assert "Traceback" not in done.stderr


UNTIL_SAID = """
ip netns add bare
timeout 60 ip netns exec bare "$@" 2>/run/said &
while kill -0 $! 2>/dev/null && ! grep -qF -- "$0" /run/said; do sleep 0.1; done
kill $! 2>/dev/null
wait $!
ip netns delete bare
cat /run/said >&2
"""
"""A command where there is no interface, until it has said `$0` or ended, for at most a minute."""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--iface", "eth7"], "interface 'eth7' does not exist"),  # it may come yet: named, and waited for
        (["--lease-ttl", "5"], "'5' is not a number of seconds of at least 30"),
        (["--run-dir", "/proc/nowhere"], "the status socket /proc/nowhere/status.sock can't be made"),
    ],
)
def test_what_can_not_work_is_said_without_a_traceback(lab: HeldLab, arguments: list[str], said: str) -> None:
    command = [*OVERLAYD, "run", "--state-dir", "/run/x", "--run-dir", "/run/x", *arguments]
    done = run_inside(lab, "node1", "sh", "-c", UNTIL_SAID, said, *command)
    assert said in done.stderr, done
    assert "Traceback" not in done.stderr


def test_a_stream_goes_on_while_the_daemon_is_killed_stopped_and_started(lab: HeldLab) -> None:
    target = next(pod.address for pod in lab.snapshot.pods if pod.node == "node2")
    server = "import socket\nc, _ = socket.create_server(('', 7000)).accept()\nwhile d := c.recv(9): c.sendall(d)"
    client = (
        "import socket, sys, time\n"
        f"c = socket.create_connection(('{target}', 7000), 10); c.settimeout(5)\n"
        "for n in range(600):\n"
        "    c.sendall(b'%08d' % n); got = c.recv(8, socket.MSG_WAITALL)\n"
        "    assert got == b'%08d' % n, (got, n)\n"
        "    time.sleep(0.01)\n"
        "print('all echoed')"
    )
    serving = threading.Thread(target=run_inside, args=(lab, "pod2-1", sys.executable, "-c", server), daemon=True)
    serving.start()
    until(lambda: ":7000" in out(lab, "pod2-1", "ss -ltn"))
    name = lab.snapshot.spec.name
    enter = [*OVERLAYD, "lab", "exec", "--name", name, "pod1-1", "--", sys.executable, "-c", client]
    with subprocess.Popen(enter, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as stream:
        for end in (Ask.KILL, Ask.STOP):
            for node in ("node1", "node2"):
                tell(lab, end, node)
                tell(lab, Ask.START, node)
        until(lambda: all(is_healthy(lab, node) for node in ("node1", "node2")))
        said, complained = stream.communicate(timeout=60)
    assert said == "all echoed\n", complained
    serving.join(10)


def test_cleanup_takes_all_that_is_ours_and_nothing_else(lab: HeldLab) -> None:
    node = "node3"
    decoys = [
        "ip link add decoy type bridge",
        "ip link set decoy addrgenmode none",
        "ip link set decoy up",
        "ip link add vx9 type vxlan id 1 dstport 4790 local 10.99.0.3 dev eth0",
        "ip link add ovl.77 type bridge",
        "ip address add 192.0.2.1/24 dev decoy",
        "ip route add 198.51.100.0/24 via 192.0.2.9 dev decoy proto 111",
        "ip route add 203.0.113.0/24 via 10.99.0.2 dev eth0",
        "ip neighbour add 192.0.2.7 lladdr 02:00:00:00:00:07 dev decoy nud permanent",
    ]
    for command in decoys:
        out(lab, node, command)
    assert run_inside(lab, node, *OVERLAYD, "cleanup").returncode == 1, "not while the daemon runs"
    with_daemon = kernel(lab, node)
    tell(lab, Ask.STOP, node)
    assert kernel(lab, node) == with_daemon, "stopping takes nothing away"
    subnet = json.loads(out(lab, node, f"{' '.join(OVERLAYD)} leases list --json"))["leases"]
    done = run_inside(lab, node, *OVERLAYD, "cleanup", "--release")
    assert done.returncode == 0, done.stderr
    mine = next(lease["subnet"] for lease in subnet if lease["node"] == node)
    assert f"released {mine}" in done.stdout

    after = kernel(lab, node)
    assert {line for line in with_daemon if "ovl.1 " not in line and "ovl.1:" not in line} == after
    again = run_inside(lab, node, *OVERLAYD, "cleanup")
    assert (again.returncode, again.stdout) == (0, "")
    for peer in ("node1", "node2"):
        until(lambda peer=peer: mine not in out(lab, peer, "ip route"))  # type: ignore[misc]
    for device in ("decoy", "vx9", "ovl.77"):
        out(lab, node, f"ip link delete {device}")
    out(lab, node, "ip route delete 203.0.113.0/24")
    tell(lab, Ask.START, node)
    until(lambda: is_healthy(lab, node))


def test_signals_are_answered_with_status_zero(lab: HeldLab) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        script = (
            'ip netns add bare; ip netns exec bare "$@" 2>/run/said & '
            "until grep -q started /run/said; do kill -0 $! || break; sleep 0.1; done; "
            f"kill -{number.value} $!; wait $!; status=$?; ip netns delete bare; cat /run/said >&2; exit $status"
        )
        command = [*OVERLAYD, "run", "--state-dir", "/run/y", "--run-dir", "/run/y"]
        done = run_inside(lab, "node1", "sh", "-c", script, "-", *command)
        assert done.returncode == 0, done.stderr
        assert f"signal={number.name}" in done.stderr
