"""How a lab stands, for someone who looks at it: a row for each node, and what is wrong, in words.

Pure: made of the facts and of what the daemons say of themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from overlayd.core.status.status import Verdict
from overlayd.lab.control import Voice
from overlayd.lab.snapshot import LabSnapshot, NodeSnapshot, ProcessState


@dataclass(frozen=True)
class PodRow:
    """`address` is None for a pod that does not stand yet."""

    name: str
    address: str | None


@dataclass(frozen=True)
class NodeRow:
    """`verdict` is "healthy", "degraded" or "cannot tell"; `peers` are those that the daemon knows of, and
    `in_sync` as many of them as its kernel is programmed for, both None while it says nothing."""

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
    """By member: its state."""
    nodes: tuple[NodeRow, ...]
    problems: tuple[str, ...]

    @property
    def healthy(self) -> bool:
        return not self.problems


VERDICTS = {Verdict.HEALTHY: "healthy", Verdict.DEGRADED: "degraded", Verdict.UNKNOWN: "cannot tell"}


def overview(facts: LabSnapshot, voices: Mapping[str, Voice]) -> Overview:
    spec = facts.spec
    problems = [
        f"{member.name} is not running: {member.process}. `{_logs(facts, member.name)}` shows its last words"
        for member in facts.etcd
        if member.process.state is not ProcessState.RUNNING
    ]
    rows = []
    for node in facts.nodes:
        voice = voices.get(node.name, Voice(silent="it was not asked"))
        rows.append(_row(facts, node, voice))
        problems += _problems(facts, node, voice)
    etcd = {member.name: str(member.process) for member in facts.etcd}
    return Overview(spec.name, spec.backend, spec.network, etcd, tuple(rows), tuple(problems))


def _row(facts: LabSnapshot, node: NodeSnapshot, voice: Voice) -> NodeRow:
    answer = voice.answer
    lease = answer.status.lease if answer else None
    return NodeRow(
        node.name,
        node.underlay,
        str(node.daemon),
        VERDICTS[answer.verdict if answer else Verdict.UNKNOWN],
        lease.subnet if lease else None,
        answer.status.peers_in_sync if answer else None,
        len(answer.status.peers) if answer else None,
        tuple(PodRow(pod.name, pod.address) for pod in facts.pods if pod.node == node.name),
    )


def _problems(facts: LabSnapshot, node: NodeSnapshot, voice: Voice) -> list[str]:
    if node.daemon.state is ProcessState.DIED:
        return [
            f"{node.name}: its daemon died ({node.daemon.end}). `{_logs(facts, node.name)}` shows its last words"
        ]
    if voice.answer is None:
        return [f"{node.name}: {voice.silent}"]
    if voice.answer.verdict is Verdict.HEALTHY:
        return []
    told = [f"{problem.text}. {problem.remedy}".strip() for problem in voice.answer.status.problems]
    return [f"{node.name}: {text}" for text in told or [voice.answer.reason]]


def _logs(facts: LabSnapshot, name: str) -> str:
    chosen = "" if facts.spec.name == "lab" else f" --name {facts.spec.name}"
    return f"overlayd lab logs{chosen} {name}"
