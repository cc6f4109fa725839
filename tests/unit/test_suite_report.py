"""What came of the checks: green must be earned, and the page names what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from overlayd.lab.model import LabSpec
from overlayd.lab.snapshot import LabSnapshot, NodeSnapshot, PodSnapshot
from overlayd.lab.suite import render
from overlayd.lab.suite.catalogue import CHECKS, UnknownCheck, choose_checks
from overlayd.lab.suite.outcome import (
    CheckFailed,
    CheckNotApplicable,
    CheckPassed,
    CheckReport,
    CheckResult,
)
from overlayd.lab.suite.sabotage import SABOTAGES
from overlayd.lab.suite.topology import NotReady, Topology

GOOD = CheckResult("pod-pod-tcp", "pods reach each other", {("pod1-1", "pod2-1"): CheckPassed()})
BAD = CheckResult(
    "pod-pod-udp",
    "pods reach each other over UDP",
    {("pod1-1", "pod2-1"): CheckFailed("no answer within 3 s (sent 3)"), ("pod2-1", "pod1-1"): CheckPassed()},
)
ABSENT = CheckResult("same-node", "pods on one node", {}, CheckNotApplicable("needs two pods on a node"))


def topology(nodes: int, pods: int) -> Topology:
    spec = LabSpec("lab", nodes, pods)
    return Topology.of(
        LabSnapshot(
            spec,
            etcd=(),
            nodes=tuple(
                NodeSnapshot(node.name, str(node.underlay), subnet=f"10.244.{node.number}.0/24", mtu=1450)
                for node in spec.all_nodes
            ),
            pods=tuple(
                PodSnapshot(pod.name, pod.node.name, f"10.244.{pod.node.number}.{pod.number + 1}")
                for pod in spec.all_pods
            ),
        )
    )


@pytest.mark.parametrize(
    ("results", "status"),
    [
        ((GOOD,), 0),
        ((GOOD, ABSENT), 0),
        ((GOOD, BAD), 1),
        ((BAD, ABSENT), 1),
        ((ABSENT,), 2),
        ((), 2),
    ],
)
def test_the_exit_status_is_green_only_if_something_passed_and_nothing_failed(
    results: tuple[CheckResult, ...], status: int
) -> None:
    assert CheckReport("lab", "vxlan", results).exit_status == status


def test_a_result_has_outcomes_or_a_reason_for_having_none() -> None:
    with pytest.raises(ValueError, match="ttl: either outcomes or a reason"):
        CheckResult("ttl", "a traceroute sees the nodes", {})
    with pytest.raises(ValueError, match="ttl: either outcomes or a reason"):
        CheckResult(
            "ttl", "a traceroute sees the nodes", {("a", "b"): CheckPassed()}, CheckNotApplicable("for no reason")
        )


def test_the_report_as_json_has_every_pair() -> None:
    record = json.loads(json.dumps(CheckReport("lab", "vxlan", (BAD, ABSENT)).as_json()))
    assert record["exit_status"] == 1
    assert [(check["name"], check["outcome"]) for check in record["checks"]] == [
        ("pod-pod-udp", "failed"),
        ("same-node", "not applicable"),
    ]
    assert record["checks"][0]["pairs"] == [
        {"from": "pod1-1", "to": "pod2-1", "passed": False, "reason": "no answer within 3 s (sent 3)"},
        {"from": "pod2-1", "to": "pod1-1", "passed": True},
    ]
    assert record["checks"][1]["reason"] == "needs two pods on a node"


def test_the_page_names_each_failing_pair_and_why() -> None:
    report = CheckReport("lab", "vxlan", (GOOD, BAD, ABSENT))
    lines = [render.plain(line) for result in report.results for line in render.lines_of_check(result)]
    assert lines == [
        "  pod-pod-tcp           1/1    pods reach each other",
        "  pod-pod-udp           1/2    pods reach each other over UDP",
        "      pod1-1 → pod2-1: no answer within 3 s (sent 3)",
        "  same-node              –     not applicable: needs two pods on a node",
    ]
    assert [render.plain(line) for line in render.verdict(report)] == [
        "1 of 2 checks failed: pod-pod-udp; not applicable here: same-node"
    ]
    assert [render.plain(line) for line in render.matrix(report, 80)][:3] == [
        "           pod1-1  pod2-1",
        "  pod1-1     ·       1",
        "  pod2-1     ●       ·",
    ]


def test_nothing_checked_is_said_aloud() -> None:
    (line,) = render.verdict(CheckReport("lab", "vxlan", (ABSENT,)))
    assert render.plain(line) == "nothing was checked; not applicable here: same-node"


@pytest.mark.parametrize(("nodes", "pods", "width"), [(3, 1, 80), (20, 1, 80), (20, 3, 80), (9, 2, 40)])
def test_a_matrix_fits_the_width_and_has_every_pair(nodes: int, pods: int, width: int) -> None:
    there = topology(nodes, pods)
    check = CHECKS[0]
    outcomes = {(pair.source.name, pair.target.name): CheckPassed() for pair in check.pairs(there)}
    report = CheckReport("lab", "vxlan", (CheckResult(check.name, check.title, outcomes),))
    lines = [render.plain(line) for line in render.matrix(report, width)]
    rows = [line for line in lines if line.startswith("  pod")]
    assert sum(row.count("●") for row in rows) == len(outcomes)
    assert max(map(len, lines[:-1])) <= width


def test_a_lab_without_subnets_is_not_ready() -> None:
    snapshot = LabSnapshot(LabSpec(), (), (NodeSnapshot("node1", "10.99.0.1"),), (PodSnapshot("pod1-1", "node1"),))
    with pytest.raises(NotReady, match="node1, pod1-1 still without an address"):
        Topology.of(snapshot)


@pytest.mark.parametrize(
    ("nodes", "pods", "across", "within", "from_nodes", "to_nodes"),
    [(3, 1, 6, 0, 9, 9), (2, 2, 8, 4, 8, 8), (1, 2, 0, 2, 2, 2), (1, 1, 0, 0, 1, 1)],
)
def test_which_pairs_are_asked(
    nodes: int, pods: int, across: int, within: int, from_nodes: int, to_nodes: int
) -> None:
    there = topology(nodes, pods)
    counts = {check.name: len(check.pairs(there)) for check in CHECKS}
    assert counts["same-node"] == within
    assert counts["node-pod"] == from_nodes
    assert counts["pod-node"] == to_nodes
    assert {counts[name] for name in ("pod-pod-tcp", "no-nat", "mtu-exact", "ttl", "forward-drop")} == {across}
    assert counts["hairpin"] == nodes * pods
    assert counts["service"] == across + (nodes - 1) * nodes * pods


def test_checks_are_choose_checks_by_name_and_unknown_names_list_the_known() -> None:
    assert choose_checks([]) == CHECKS
    assert [check.name for check in choose_checks(["ttl", "pod-pod-tcp"])] == ["pod-pod-tcp", "ttl"]
    with pytest.raises(UnknownCheck, match=r"no check is called ping; the checks are pod-pod-tcp, .*ttl"):
        choose_checks(["ping", "ttl"])


def test_the_documentation_has_every_check_and_every_sabotage() -> None:
    text = (Path(__file__).parents[2] / "docs" / "checks.md").read_text()
    rows = {cells[1].strip(" `"): cells for line in text.splitlines() if len(cells := line.split("|")) == 6}
    assert [name for name in rows if name in {check.name for check in CHECKS}] == [check.name for check in CHECKS]
    for sabotage in SABOTAGES:
        assert sabotage.fault in rows[sabotage.check][4].strip().split("; ")
