"""The checks on overlays that were set by hand: no store, no daemon, so what they find is theirs alone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from overlayd.lab.suite.catalogue import CHECKS
from support.netns import require_root

TESTS = Path(__file__).parents[1]
NEEDS_DAEMONS = ("masquerade-outside", "spoof-outer", "spoof-inner", "spoof-subnet", "forward-drop", "leave")


def in_static_lab(
    backend: str, nodes: int, pods: int, *command: str, become: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    require_root()
    lab = [*become, sys.executable, "-m", "support.static_lab", backend, str(nodes), str(pods), "--"]
    return subprocess.run([*lab, *command], cwd=TESTS, text=True, capture_output=True, check=False, timeout=120)


def suite(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "overlayd.lab.suite", *arguments]


ROOT: tuple[str, ...] = ()
ROOT_OF_A_USER_NAMESPACE = ("unshare", "--user", "--map-root-user")
"""As in the lab of an ordinary user: root inside, without any privilege over the machine."""


@pytest.mark.parametrize(
    ("backend", "become"), [("vxlan", ROOT), ("host-gw", ROOT), ("vxlan", ROOT_OF_A_USER_NAMESPACE)]
)
def test_a_sound_overlay_passes_every_check(backend: str, become: tuple[str, ...]) -> None:
    names = [check.name for check in CHECKS if check.name not in NEEDS_DAEMONS]
    done = in_static_lab(backend, 3, 2, *suite("--json", *names), become=become)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert list(found) == names
    assert {name: len(check["pairs"]) for name, check in found.items()} == {
        name: {"same-node": 6, "node-pod": 18, "pod-node": 18, "service": 36, "hairpin": 6}.get(name, 24)
        for name in names
    }
    assert all(pair["passed"] for check in found.values() for pair in check["pairs"])


def test_what_does_not_apply_says_what_would() -> None:
    done = in_static_lab("host-gw", 2, 1, *suite("same-node", "ttl"))
    assert done.returncode == 0
    assert "not applicable: needs two pods on a node: `overlayd lab up --pods 2`" in done.stdout
    assert done.stdout.rstrip().endswith("1 check passed; not applicable here: same-node")
    alone = in_static_lab("host-gw", 2, 1, *suite("same-node"))
    assert alone.returncode == 2
    assert "nothing was checked" in alone.stdout


def test_what_can_not_be_shown_is_not_green() -> None:
    done = in_static_lab("vxlan", 2, 1, *suite("spoof-outer", "masquerade-outside"))
    assert done.returncode == 2
    assert "not applicable: needs nodes that masquerade: `overlayd lab up --ip-masq`" in done.stdout
    assert "not applicable: node2 does not say what it drops: no daemon runs here" in done.stdout
    plain = in_static_lab("host-gw", 2, 1, *suite("spoof-outer"))
    assert plain.returncode == 2
    assert "not applicable: needs a backend that encapsulates packets" in plain.stdout


def test_an_unknown_check_lists_those_there_are() -> None:
    done = in_static_lab("host-gw", 2, 1, *suite("ping"))
    assert done.returncode == 2
    assert "no check is called ping; the checks are pod-pod-tcp, " in done.stderr


def test_outside_a_lab_it_says_so() -> None:
    done = subprocess.run(suite(), text=True, capture_output=True, check=False)
    assert done.returncode == 2
    assert "snapshot.json" in done.stderr
    assert "overlayd lab" in done.stderr


def broken(backend: str, command: str, *checks: str) -> dict[tuple[str, str, str], str]:
    """By check and pair, why it fails in a lab with a pod on each of three nodes after a shell command."""
    run = " ".join(suite("--json", *checks))
    done = in_static_lab(backend, 3, 1, "sh", "-c", f"{command} && {run}")
    assert done.returncode == 1, done.stdout + done.stderr
    return {
        (check["name"], pair["from"], pair["to"]): pair["reason"]
        for check in json.loads(done.stdout)["checks"]
        for pair in check["pairs"]
        if not pair["passed"]
    }


def test_a_missing_fdb_entry_shows_where_packets_get_lost() -> None:
    assert broken("vxlan", "bridge -n node1 fdb del 0a:00:00:00:00:02 dev ovl.1", "pod-pod-icmp") == {
        ("pod-pod-icmp", "pod1-1", "pod2-1"): ("no echo within 3 s (sent 3): the question never reached pod2-1"),
        ("pod-pod-icmp", "pod2-1", "pod1-1"): (
            "no echo within 3 s (sent 3): pod1-1 got the question, its answer was lost"
        ),
    }


def test_a_missing_route_is_told_with_who_says_so() -> None:
    assert broken("host-gw", "ip -n node1 route del 10.244.2.0/24", "pod-pod-tcp") == {
        ("pod-pod-tcp", "pod1-1", "pod2-1"): "no connection: network is unreachable, says 10.244.1.1",
        ("pod-pod-tcp", "pod2-1", "pod1-1"): "no connection within 3 s",
    }


def test_a_lower_mtu_on_the_way_is_told_with_its_value() -> None:
    command = "ip -n node1 route change 10.244.2.0/24 via 10.99.0.2 dev eth0 mtu 1400"
    assert broken("host-gw", command, "large-tcp", "large-udp", "mtu-exact") == {
        ("mtu-exact", "pod1-1", "pod2-1"): (
            "a packet of 1500 bytes: no answer: message too long for an MTU of 1400, says 10.244.1.1"
        )
    }


def test_a_larger_mtu_than_the_overlay_tells_is_found() -> None:
    command = "ip -n pod1-1 link set eth0 mtu 1501"
    reason = "pod1-1 has an MTU of 1501, the overlay carries 1500"
    assert broken("host-gw", command, "mtu-exact") == {
        ("mtu-exact", "pod1-1", "pod2-1"): reason,
        ("mtu-exact", "pod1-1", "pod3-1"): reason,
    }


def test_mtu_exact_leaves_the_pods_as_they_were() -> None:
    show = "for pod in pod1-1 pod2-1; do ip -n $pod -o link show eth0; done"
    run = " ".join(suite("mtu-exact"))
    done = in_static_lab("vxlan", 2, 1, "sh", "-c", f"{show}; {run} > /dev/null; {show}")
    before, after = done.stdout.splitlines()[:2], done.stdout.splitlines()[2:]
    assert before == after
    assert all("mtu 1450" in line for line in before)


def test_a_check_that_cannot_be_asked_is_not_green() -> None:
    run = " ".join(suite("pod-pod-tcp"))
    done = in_static_lab("host-gw", 2, 1, "sh", "-c", f"ip netns del pod2-1 && {run}")
    assert done.returncode == 2
    assert "cannot enter pod2-1: no such file or directory" in done.stderr
    assert "passed" not in done.stdout


def test_a_check_that_is_interrupted_is_not_green() -> None:
    # What pod1-1 sends is lost, so that there is something to wait for when the signal comes.
    lose = "ip -n node1 route add blackhole 10.244.2.0/25"
    run = " ".join(suite("pod-pod-tcp", "ttl"))
    done = in_static_lab("host-gw", 2, 1, "sh", "-c", f"{lose} && timeout --signal INT 1.5 {run}; echo status $?")
    assert "ended early; what is not listed was not checked" in done.stderr
    assert "passed" not in done.stdout
