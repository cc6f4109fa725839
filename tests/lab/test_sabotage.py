"""The checks can fail: each sabotage turns just its own check red, for just its own pair, in a lab of real
daemons."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import pytest

from overlayd.lab.blueprint import visitor_environment
from overlayd.lab.launcher import HeldLab
from overlayd.lab.model import LabSpec
from overlayd.lab.suite.catalogue import CHECKS
from overlayd.lab.suite.sabotage import SABOTAGES
from support.lab import Labs

PATIENCE = 180
"""Seconds for a whole campaign on a busy machine."""


@contextmanager
def inside(held: HeldLab, *command: str) -> Generator[subprocess.Popen[str]]:
    """A command in the lab's root namespace."""
    environment = visitor_environment(os.environ, held.snapshot.spec, None)
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
    return [sys.executable, "-m", "overlayd.lab.suite.self_test", *checks]


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


CONTACT = ("pod-pod-tcp", "pod-pod-udp", "pod-pod-icmp", "same-node", "node-pod", "pod-node")
SIZES = ("large-tcp", "large-udp", "mtu-exact")
FORGED = ("spoof-outer", "spoof-inner", "spoof-subnet")
FIREWALLS = ("service", "hairpin", "forward-drop")
UNENCAPSULATED = ("no-nat", "mtu-exact", "ttl", *FIREWALLS, "leave")
"""What might come out otherwise over host-gw."""
USERSPACE = ("large-udp", "mtu-exact", "ttl", *FORGED, "leave")
"""What might come out otherwise over udp."""


USUAL = LabSpec(nodes=3, pods=2)
MASQUERADING = replace(USUAL, network="172.16.0.0/12", ip_masq=True)


def test_each_sabotage_turns_just_its_own_check_and_pair_red(labs: Labs) -> None:
    """Most of a campaign is waiting for what does not come, so they run side by side, each in a lab of its own."""
    some, others = (*CONTACT, *SIZES, *FORGED), ("no-nat", "ttl", "masquerade-outside", *FIREWALLS, "leave")
    assert {*some, *others} == {check.name for check in CHECKS}
    assert_each_is_found_out((labs.get(USUAL), some), (labs.get(MASQUERADING), others))


@pytest.mark.long
def test_the_same_over_host_gw(labs: Labs) -> None:
    assert_each_is_found_out((labs.get(replace(USUAL, backend="host-gw")), UNENCAPSULATED))


@pytest.mark.long
def test_the_same_over_udp_on_either_datapath(labs: Labs) -> None:
    assert_each_is_found_out((labs.get(replace(USUAL, backend="udp", datapaths=("c", "python"))), USERSPACE))


def assert_each_is_found_out(*campaigns: tuple[HeldLab, Sequence[str]]) -> None:
    with ExitStack() as stack:
        processes = [stack.enter_context(inside(held, *proof(*checks))) for held, checks in campaigns]
        for process, (_, checks) in zip(processes, campaigns, strict=True):
            assert_proven(steps_of(process), [each.fault for each in SABOTAGES if each.check in checks])
