"""How a lab is judged and drawn."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlayd.core.status.status import (
    LeaseStatus,
    PeerState,
    PeerStatus,
    ProblemStatus,
    Status,
    StatusAnswer,
    Verdict,
)
from overlayd.lab.client import describe_absence
from overlayd.lab.control import DaemonAnswer
from overlayd.lab.diagram import MOST_PODS, diagram
from overlayd.lab.model import LabSpec
from overlayd.lab.namespaces import explain_refusal
from overlayd.lab.overview import NodeRow, Overview, PodRow, overview
from overlayd.lab.provision import shortcomings
from overlayd.lab.snapshot import (
    EtcdSnapshot,
    LabSnapshot,
    NodeSnapshot,
    PodSnapshot,
    ProcessSnapshot,
    ProcessState,
)

RUNNING = ProcessSnapshot(ProcessState.RUNNING, 7)
DIED = ProcessSnapshot(ProcessState.DIED, 7, "exit status 1")
SPEC = LabSpec(nodes=2)


def answered(
    verdict: Verdict = Verdict.HEALTHY, reason: str = "", peers: int = 1, problems: tuple[ProblemStatus, ...] = ()
) -> DaemonAnswer:
    status = Status(
        version="0",
        at=0.0,
        resync=30.0,
        node="node1",
        node_id="id",
        started=0.0,
        belief="held",
        in_sync=True,
        revision=1,
        lease=LeaseStatus("10.244.7.0/24", 0.0, 60.0),
        peers=(PeerStatus("node2", "10.244.8.0/24", "10.99.0.2", PeerState.IN_SYNC, 0.0),) * peers,
        problems=problems,
    )
    return DaemonAnswer(StatusAnswer(0.0, verdict, reason, status))


def snapshot(*daemons: ProcessSnapshot, etcd: ProcessSnapshot = RUNNING, name: str = "lab") -> LabSnapshot:
    spec = LabSpec(name, nodes=len(daemons))
    nodes = tuple(
        NodeSnapshot(node.name, str(node.underlay), daemon)
        for node, daemon in zip(spec.all_nodes, daemons, strict=True)
    )
    pods = tuple(PodSnapshot(pod.name, pod.node.name, f"10.244.{pod.node.number}.2") for pod in spec.all_pods)
    return LabSnapshot(spec, (EtcdSnapshot("etcd1", "10.99.255.1", etcd),), nodes, pods, ready=True)


def test_a_healthy_lab_has_no_problems() -> None:
    view = overview(snapshot(RUNNING, RUNNING), {"node1": answered(), "node2": answered()})
    assert view.healthy
    assert view.nodes[0] == NodeRow(
        "node1", "10.99.0.1", "running", "healthy", "10.244.7.0/24", 1, 1, (PodRow("pod1-1", "10.244.1.2"),)
    )


@pytest.mark.parametrize(
    ("seen", "answers", "problem"),
    [
        (
            snapshot(DIED),
            {},
            "node1: its daemon died (exit status 1). `overlayd lab logs node1` shows its log",
        ),
        (
            snapshot(DIED, name="other"),
            {},
            "node1: its daemon died (exit status 1). `overlayd lab logs --name other node1` shows its log",
        ),
        (
            snapshot(RUNNING, etcd=DIED),
            {"node1": answered()},
            "etcd1 is not running: died (exit status 1). `overlayd lab logs etcd1` shows its log",
        ),
        (snapshot(RUNNING), {"node1": DaemonAnswer(failure="it did not answer")}, "node1: it did not answer"),
        (snapshot(RUNNING), {}, "node1: it was not asked"),
        (snapshot(RUNNING), {"node1": answered(Verdict.UNKNOWN, "too old")}, "node1: too old"),
        (
            snapshot(RUNNING),
            {"node1": answered(Verdict.DEGRADED, "x", problems=(ProblemStatus("c", "No route", "Mend it"),))},
            "node1: No route. Mend it",
        ),
    ],
)
def test_what_is_wrong_is_said(seen: LabSnapshot, answers: Mapping[str, DaemonAnswer], problem: str) -> None:
    view = overview(seen, answers)
    assert view.problems == (problem,)
    assert not view.healthy


@pytest.mark.parametrize(
    ("second", "lacking"),
    [
        (answered(), {}),
        (answered(peers=0), {"node2": "it knows 0 of its 1 peers"}),
        (answered(peers=2), {"node2": "it knows 2 of its 1 peers"}),
        (DaemonAnswer(failure="no answer"), {"node2": "no answer"}),
        (answered(Verdict.DEGRADED, "not yet"), {"node2": "not yet"}),
        (answered(Verdict.UNKNOWN, "old"), {"node2": "old"}),
    ],
)
def test_a_lab_has_converged_when_every_node_is_healthy_with_all_peers(
    second: DaemonAnswer, lacking: dict[str, str]
) -> None:
    assert shortcomings(SPEC, {"node1": answered(), "node2": second}) == lacking


rows = st.builds(
    lambda n, subnet, pods: NodeRow(
        f"node{n}",
        f"10.99.0.{n}",
        "running",
        "healthy",
        f"10.244.{subnet}.0/24" if subnet else None,
        1,
        1,
        tuple(PodRow(f"pod{n}-{k}", f"10.244.{subnet}.{k + 1}" if subnet else None) for k in range(1, pods + 1)),
    ),
    st.integers(1, 250),
    st.none() | st.integers(1, 255),
    st.integers(0, 2 * MOST_PODS),
)


@given(st.lists(rows, min_size=1, max_size=30), st.integers(40, 200))
def test_the_picture_is_straight_and_complete(nodes: list[NodeRow], columns: int) -> None:
    view = Overview("lab", "vxlan", "10.244.0.0/16", {"etcd1": "running"}, tuple(nodes), ())
    lines = ["".join(text for text, _ in line) for line in diagram(view, columns)]
    assert all(len(line) <= columns for line in lines)
    for top, wire in zip([x for x in lines if "╭" in x], [x for x in lines if "┷" in x], strict=True):
        assert len(top) == len(wire)
    bottoms = [line for line in lines if "┬" in line]
    for bottom, wire in zip(bottoms, [x for x in lines if "┷" in x], strict=True):
        assert [k for k, c in enumerate(bottom) if c == "┬"] == [k for k, c in enumerate(wire) if c == "┷"]
    text = "\n".join(lines)
    for node in nodes:
        assert f"╭─ {node.name} " in text
        assert all(f" {pod.name}  " in text for pod in node.pods[:MOST_PODS])


def test_absence_is_explained() -> None:
    assert describe_absence("lab", []) == "no lab named 'lab' is up: `overlayd lab up` makes one"
    assert describe_absence("a", []) == "no lab named 'a' is up: `overlayd lab up --name a` makes one"
    assert describe_absence("a", ["b", "c"]).endswith("up are: b, c (choose with --name)")
    assert "just being made" in describe_absence("a", ["a"])


@pytest.mark.parametrize(
    ("switches", "remedy"),
    [
        ({"kernel.unprivileged_userns_clone": "0"}, "sysctl -w kernel.unprivileged_userns_clone=1"),
        (
            {"kernel.unprivileged_userns_clone": "1", "kernel.apparmor_restrict_unprivileged_userns": "1"},
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ({"user.max_user_namespaces": "0"}, "sysctl -w user.max_user_namespaces="),
        ({"user.max_user_namespaces": "96365"}, "run the lab as root"),
    ],
)
def test_a_refused_user_namespace_names_what_allows_it(switches: dict[str, str], remedy: str) -> None:
    assert remedy in explain_refusal("Operation not permitted", switches)
