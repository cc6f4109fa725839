"""The checks can fail: each sabotage turns just its own check red, for just its own pair, in a lab of real
daemons."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from overlayd.lab.blueprint import visitor_environment
from overlayd.lab.model import LabSpec
from overlayd.lab.raising import HeldLab
from overlayd.lab.suite.catalogue import CHECKS
from overlayd.lab.suite.sabotage import SABOTAGES
from support.lab import Labs

PATIENCE = 180
"""Seconds for a whole campaign, which takes some 40."""


@contextmanager
def inside(held: HeldLab, *command: str) -> Generator[subprocess.Popen[str]]:
    """A command in the lab's root namespace."""
    environment = visitor_environment(os.environ, held.facts.spec, None)
    process = subprocess.Popen(
        held.lab.entrance(None, command),
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def proof(*checks: str) -> list[str]:
    return [sys.executable, "-m", "overlayd.lab.suite.prove", *checks]


def steps_of(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    said, complaint = process.communicate(timeout=PATIENCE)
    steps = [json.loads(line) for line in said.splitlines()]
    assert process.returncode in (0, 1), complaint
    return steps


def shown(entries: list[dict[str, str]]) -> set[tuple[str, str, str]]:
    return {(entry["check"], entry["from"], entry["to"]) for entry in entries}


def assert_proven(steps: list[dict[str, Any]], faults: list[str]) -> None:
    assert [step["fault"] for step in steps] == ["no fault yet", *faults, "no fault any more"]
    for step in steps:
        assert shown(step["red"]) == shown(step["expected"]), step["fault"]
    assert all(len(step["expected"]) == 1 for step in steps[1:-1])


def test_every_check_has_a_sabotage() -> None:
    assert {sabotage.check for sabotage in SABOTAGES} == {check.name for check in CHECKS}


def test_each_sabotage_turns_just_its_own_check_and_pair_red(lab: HeldLab, labs: Labs) -> None:
    part = ("no-nat", "mtu-exact", "ttl", "leave")  # where a way without encapsulation might differ
    host_gw = labs.get(LabSpec(nodes=3, pods=2, backend="host-gw"))
    with inside(lab, *proof()) as over_vxlan, inside(host_gw, *proof(*part)) as over_host_gw:
        assert_proven(steps_of(over_vxlan), [sabotage.fault for sabotage in SABOTAGES])
        assert_proven(steps_of(over_host_gw), [sabotage.fault for sabotage in SABOTAGES if sabotage.check in part])
