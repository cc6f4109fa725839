"""The snapshot of a running lab, as values that are sent as JSON.

The holder keeps the current one in `SNAPSHOT_FILE` inside the lab, replaced whole at each change, and returns it
in the answer to every request on its control channel (see control.py).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

import msgspec

from overlayd.lab.model import HOME, LabSpec

SNAPSHOT_FILE = HOME / "snapshot.json"


class ProcessState(enum.StrEnum):
    WAITING = "waiting"
    """Not started yet."""
    RUNNING = "running"
    PAUSED = "paused"
    """Stopped by SIGSTOP."""
    STOPPED = "stopped"
    """Ended on request: stop or kill."""
    DIED = "died"
    """Ended by itself."""


@dataclass(frozen=True)
class ProcessSnapshot:
    """A process of the lab.

    `pid` is its number inside the lab's PID namespace.  `end` is how it ended, such as "exit status 1" or
    "SIGKILL", and "" before that.
    """

    state: ProcessState = ProcessState.WAITING
    pid: int | None = None
    end: str = ""

    def __str__(self) -> str:
        return f"{self.state} ({self.end})" if self.end else self.state.value


@dataclass(frozen=True)
class EtcdSnapshot:
    name: str
    address: str
    process: ProcessSnapshot = ProcessSnapshot()


@dataclass(frozen=True)
class NodeSnapshot:
    """A node.  `subnet` ("10.244.7.0/24") and `mtu` (bytes) are None until its daemon has published them."""

    name: str
    underlay: str
    daemon: ProcessSnapshot = ProcessSnapshot()
    subnet: str | None = None
    mtu: int | None = None


@dataclass(frozen=True)
class PodSnapshot:
    """A pod.  `address` is None until it is set up, which needs its node's subnet."""

    name: str
    node: str
    address: str | None = None


@dataclass(frozen=True)
class LabSnapshot:
    """A lab.  `ready` is true from the first convergence of the overlay on, whatever happens afterwards."""

    spec: LabSpec
    etcd: tuple[EtcdSnapshot, ...]
    nodes: tuple[NodeSnapshot, ...]
    pods: tuple[PodSnapshot, ...]
    ready: bool = False

    def node(self, name: str) -> NodeSnapshot:
        """Find a node by its name.  Raises KeyError."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    @property
    def places(self) -> tuple[str, ...]:
        """The names of all network namespaces that can be entered: the nodes, then the pods."""
        return tuple(node.name for node in self.nodes) + tuple(pod.name for pod in self.pods)


def read_snapshot(path: Path = SNAPSHOT_FILE) -> LabSnapshot:
    """Read the snapshot of the lab that the caller runs in.  Raises FileNotFoundError outside of a lab."""
    return msgspec.json.decode(path.read_bytes(), type=LabSnapshot)
