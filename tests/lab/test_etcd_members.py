"""A lab whose etcd is a cluster: its members are stopped one by one, and the daemons do not mind."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Generator

import pytest

from overlayd.lab.blueprint import visitor_environment
from overlayd.lab.client import RunningLab
from overlayd.lab.control import Ask, LabError
from overlayd.lab.model import LabSpec
from overlayd.lab.overview import overview
from overlayd.lab.snapshot import ProcessState
from overlayd.lab.state import find_etcd
from support.lab import Labs

PATIENCE = 60.0
SPEC = LabSpec(nodes=2, pods=1, etcd_members=3)


@pytest.fixture
def lab(labs: Labs) -> Generator[RunningLab]:
    lab = labs.get(SPEC).lab
    yield lab
    for member in lab.snapshot().etcd:
        if member.process.state is ProcessState.PAUSED:
            lab.ask(Ask.RESUME, member.name)
        elif member.process.state is not ProcessState.RUNNING:
            lab.ask(Ask.START, member.name)


def problems(lab: RunningLab) -> tuple[str, ...]:
    reply = lab.ask(Ask.STATUS)
    assert reply.snapshot is not None
    return overview(reply.snapshot, reply.answers).problems


def state(lab: RunningLab, name: str) -> ProcessState:
    return next(member.process.state for member in lab.snapshot().etcd if member.name == name)


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def find_leader(lab: RunningLab) -> str:
    command = lab.entrance(None, [str(find_etcd().parent / "etcdctl"), "endpoint", "status", "-w", "json"])
    environment = visitor_environment({}, SPEC, None)
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    for answer in json.loads(done.stdout):
        if answer["Status"]["leader"] == answer["Status"]["header"]["member_id"]:
            address = answer["Endpoint"].removeprefix("http://").removesuffix(":2379")
            return next(member.name for member in SPEC.all_etcd_members if str(member.address) == address)
    raise AssertionError(f"no leader in {done.stdout!r}")


def test_the_daemons_outlive_the_leader(lab: RunningLab) -> None:
    leader = find_leader(lab)
    lab.ask(Ask.KILL, leader)
    assert state(lab, leader) is ProcessState.STOPPED
    assert problems(lab)[0].startswith(f"{leader} is not running: stopped (SIGKILL). `overlayd lab logs")
    # A daemon that starts now has to find the members that are left, read, and write.
    lab.ask(Ask.STOP, "node2")
    lab.ask(Ask.START, "node2")
    wait_until(lambda: len(problems(lab)) == 1)
    lab.ask(Ask.START, leader)
    wait_until(lambda: not problems(lab))


def is_stopped(lab: RunningLab, pid: int | None) -> bool:
    stat = subprocess.run(
        lab.entrance(None, ["cat", f"/proc/{pid}/stat"]), capture_output=True, text=True, check=True
    )
    return stat.stdout.rpartition(") ")[2].startswith("T ")


def test_members_are_paused_and_resumed_like_daemons(lab: RunningLab) -> None:
    lab.ask(Ask.PAUSE, "etcd1")
    lab.ask(Ask.PAUSE, "node1")
    assert state(lab, "etcd1") is ProcessState.PAUSED
    snapshot = lab.snapshot()
    for process in (snapshot.etcd[0].process, snapshot.node("node1").daemon):
        wait_until(functools.partial(is_stopped, lab, process.pid))  # each thread stops at its next turn
    assert problems(lab)[:2] == (
        f"etcd1 is not running: paused. `overlayd lab logs --name {lab.name} etcd1` shows its log",
        "node1: its daemon does not run: paused",
    )
    lab.ask(Ask.RESUME, "etcd1")
    lab.ask(Ask.RESUME, "node1")
    wait_until(lambda: not problems(lab))
    with pytest.raises(LabError, match="etcd2 runs already"):
        lab.ask(Ask.START, "etcd2")
    lab.ask(Ask.PAUSE, "etcd2")
    lab.ask(Ask.STOP, "etcd2")  # which a process that stands still could not heed
    with pytest.raises(LabError, match="etcd2 does not run: stopped"):
        lab.ask(Ask.PAUSE, "etcd2")


def test_each_member_has_a_log(lab: RunningLab) -> None:
    for member in SPEC.all_etcd_members:
        command = [sys.executable, "-m", "overlayd", "lab", "logs", "--name", lab.name, member.name]
        assert subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_more_members_than_are_of_use_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    from overlayd.cli import main

    assert main(["lab", "up", "--etcd-members", "8"]) == 2
    assert "etcd can't have 8 members here: from 1 to 7 it can" in capsys.readouterr().err
