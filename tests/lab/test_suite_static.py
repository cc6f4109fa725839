"""The checks on overlays that were set by hand: no store, no daemon, so what they find is theirs alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from overlayd.lab.suite.catalogue import CHECKS
from support.netns import require_root

TESTS = Path(__file__).parents[1]


def in_static_lab(backend: str, nodes: int, pods: int, *command: str) -> subprocess.CompletedProcess[str]:
    require_root()
    lab = [sys.executable, "-m", "support.static_lab", backend, str(nodes), str(pods), "--"]
    return subprocess.run([*lab, *command], cwd=TESTS, text=True, capture_output=True, check=False, timeout=120)


def suite(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "overlayd.lab.suite", *arguments]


@pytest.mark.parametrize("backend", ["vxlan", "host-gw"])
def test_a_sound_overlay_passes_every_check(backend: str) -> None:
    names = [check.name for check in CHECKS if check.name != "leave"]
    done = in_static_lab(backend, 3, 2, *suite("--json", *names))
    assert done.returncode == 0, done.stdout + done.stderr
    found = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert list(found) == names
    assert {name: len(check["pairs"]) for name, check in found.items()} == {
        name: {"same-node": 6, "node-pod": 18, "pod-node": 18}.get(name, 24) for name in names
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


def test_an_unknown_check_lists_those_there_are() -> None:
    done = in_static_lab("host-gw", 2, 1, *suite("ping"))
    assert done.returncode == 2
    assert "no check is called ping; the checks are pod-pod-tcp, " in done.stderr


def test_outside_a_lab_it_says_so() -> None:
    done = subprocess.run(suite(), text=True, capture_output=True, check=False)
    assert done.returncode == 2
    assert "facts.json" in done.stderr
    assert "overlayd lab" in done.stderr
