"""The overview of a lab: a row for each node, and its problems in words.

Pure: made of the snapshot and of the daemons' answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from overlayd.core.status.status import Verdict
from overlayd.lab.control import DaemonAnswer
from overlayd.lab.snapshot import LabSnapshot, NodeSnapshot, ProcessState


@dataclass(frozen=True)
class PodRow:
    """A pod.  `address` is None for one that is not set up yet."""

    name: str
    address: str | None


@dataclass(frozen=True)
class NodeRow:
    """A node.

    `verdict` is "healthy", "degraded" or "cannot tell".  `peers` counts those that the daemon knows, `in_sync`
    those that its kernel is programmed for; both are None without an answer of the daemon.
    """

    name: str
    underlay: str
    daemon: str
    verdict: str
    subnet: str | None
    in_sync: int | None
    peers: int | None
    pods: tuple[PodRow, ...]


@dataclass(frozen=True)
class Overview:
    name: str
    backend: str
    network: str
    etcd: dict[str, str]
    """The state of each member."""
    nodes: tuple[NodeRow, ...]
    problems: tuple[str, ...]

    @property
    def healthy(self) -> bool:
        return not self.problems


VERDICTS = {Verdict.HEALTHY: "healthy", Verdict.DEGRADED: "degraded", Verdict.UNKNOWN: "cannot tell"}


def overview(snapshot: LabSnapshot, answers: Mapping[str, DaemonAnswer]) -> Overview:
    spec = snapshot.spec
    problems = [
        f"{member.name} is not running: {member.process}. `{_logs(snapshot, member.name)}` shows its log"
        for member in snapshot.etcd
        if member.process.state is not ProcessState.RUNNING
    ]
    rows = []
    for node in snapshot.nodes:
        given = answers.get(node.name, DaemonAnswer(failure="it was not asked"))
        rows.append(_row(snapshot, node, given))
        problems += _problems(snapshot, node, given)
    etcd = {member.name: str(member.process) for member in snapshot.etcd}
    return Overview(spec.name, spec.backend, spec.network, etcd, tuple(rows), tuple(problems))


def _row(snapshot: LabSnapshot, node: NodeSnapshot, given: DaemonAnswer) -> NodeRow:
    answer = given.answer
    lease = answer.status.lease if answer else None
    return NodeRow(
        node.name,
        node.underlay,
        str(node.daemon),
        VERDICTS[answer.verdict if answer else Verdict.UNKNOWN],
        lease.subnet if lease else None,
        answer.status.peers_in_sync if answer else None,
        len(answer.status.peers) if answer else None,
        tuple(PodRow(pod.name, pod.address) for pod in snapshot.pods if pod.node == node.name),
    )


def _problems(snapshot: LabSnapshot, node: NodeSnapshot, given: DaemonAnswer) -> list[str]:
    if node.daemon.state is ProcessState.DIED:
        return [f"{node.name}: its daemon died ({node.daemon.end}). `{_logs(snapshot, node.name)}` shows its log"]
    if given.answer is None:
        return [f"{node.name}: {given.failure}"]
    if given.answer.verdict is Verdict.HEALTHY:
        return []
    told = [f"{problem.text}. {problem.remedy}".strip() for problem in given.answer.status.problems]
    return [f"{node.name}: {text}" for text in told or [given.answer.reason]]


def _logs(snapshot: LabSnapshot, name: str) -> str:
    chosen = "" if snapshot.spec.name == "lab" else f" --name {snapshot.spec.name}"
    return f"overlayd lab logs{chosen} {name}"
