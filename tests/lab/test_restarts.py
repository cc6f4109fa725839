"""Every daemon is restarted in turn while pods talk: nothing breaks, and what is lost is counted and printed."""

from __future__ import annotations

import time

import pytest

from overlayd.lab.control import Ask
from overlayd.lab.launcher import HeldLab
from overlayd.lab.model import LabSpec
from overlayd.lab.overview import Overview, overview
from support.flow import FlowOutcome, flow
from support.lab import Labs

PATIENCE = 60.0


def look(lab: HeldLab) -> Overview:
    reply = lab.lab.ask(Ask.STATUS)
    assert reply.snapshot is not None
    return overview(reply.snapshot, reply.answers)


def wait_healthy(lab: HeldLab) -> None:
    deadline = time.monotonic() + PATIENCE
    while not (view := look(lab)).healthy:
        assert time.monotonic() < deadline, view.problems
        time.sleep(0.1)


def restart_each(lab: HeldLab, verb: Ask, *, until_healthy: bool) -> None:
    for node in lab.snapshot.spec.all_nodes:
        lab.lab.ask(verb, node.name)
        lab.lab.ask(Ask.START, node.name)
        if until_healthy:
            wait_healthy(lab)
        else:
            time.sleep(2.0)  # long enough for the daemon to have done whatever it does without etcd


@pytest.fixture(params=["vxlan", "host-gw", "udp"])
def two_nodes(request: pytest.FixtureRequest, labs: Labs) -> HeldLab:
    return labs.get(LabSpec(nodes=2, backend=request.param))


@pytest.mark.long
def test_restarting_every_daemon_breaks_nothing(two_nodes: HeldLab, capsys: pytest.CaptureFixture[str]) -> None:
    lab, backend = two_nodes, two_nodes.snapshot.spec.backend
    sender, receiver = lab.snapshot.spec.all_pods
    [address] = [pod.address for pod in lab.lab.snapshot().pods if pod.name == receiver.name]
    outcomes: dict[str, FlowOutcome] = {}
    for verb in (Ask.STOP, Ask.KILL):
        with flow(lab, sender.name, receiver.name, str(address)) as running:
            restart_each(lab, verb, until_healthy=True)
            outcomes[f"restart by {verb.value}"] = running.finish()
    lab.lab.ask(Ask.KILL, "etcd1")
    try:
        with flow(lab, sender.name, receiver.name, str(address)) as running:
            restart_each(lab, Ask.KILL, until_healthy=False)
            outcomes["restart by kill, etcd away"] = running.finish()
    finally:
        lab.lab.ask(Ask.START, "etcd1")
        wait_healthy(lab)
    with capsys.disabled():
        for name, outcome in outcomes.items():
            print(
                f"\n{backend}, {name}: {outcome.lost} of {outcome.sent} datagrams lost, "
                f"longest gap {outcome.longest_gap * 1000:.0f} ms",
                end="",
            )
    for name, outcome in outcomes.items():
        assert outcome.sent > 100, name
        assert outcome.stream_intact, name
        if backend != "udp":  # whose datapath is in the daemon's own process
            assert outcome.lost <= 2, name  # the last ones may be on their way still
