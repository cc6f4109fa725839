"""A lab as its holder has it: the processes that run in it and what is known of them, published as facts."""

from __future__ import annotations

import signal
from pathlib import Path

import msgspec
import trio

from overlayd.api.status_socket import StatusUnavailableError, query_status
from overlayd.lab.blueprint import SubnetFile, daemon_command, etcd_command
from overlayd.lab.control import LabError, Voice
from overlayd.lab.facts import FACTS_FILE, EtcdFacts, Facts, NodeFacts, PodFacts, ProcessFacts, ProcessState
from overlayd.lab.model import EtcdMember, LabSpec, Node, Pod
from overlayd.lab.processes import Process, Spawner, last_lines

STOP_PATIENCE = 30.0
"""Seconds that a daemon may take to end after SIGTERM."""


class House:
    def __init__(self, spec: LabSpec, spawner: Spawner) -> None:
        self.spec = spec
        self.spawner = spawner
        self._running: dict[str, Process] = {}
        self._asked_to_end: set[Process] = set()
        self._processes: dict[str, ProcessFacts] = {}
        self._subnets: dict[str, SubnetFile] = {}
        self._pods: set[str] = set()
        self._ready = False
        self._publish()

    @property
    def facts(self) -> Facts:
        return Facts(
            self.spec,
            etcd=tuple(self._etcd_facts(member) for member in self.spec.all_etcd_members),
            nodes=tuple(self._node_facts(node) for node in self.spec.all_nodes),
            pods=tuple(self._pod_facts(pod) for pod in self.spec.all_pods),
            ready=self._ready,
        )

    def _etcd_facts(self, member: EtcdMember) -> EtcdFacts:
        return EtcdFacts(member.name, str(member.address), self._process_facts(member.name))

    def _node_facts(self, node: Node) -> NodeFacts:
        known = self._subnets.get(node.name)
        return NodeFacts(
            node.name,
            str(node.underlay),
            self._process_facts(node.name),
            subnet=str(known.bridge.network) if known else None,
            mtu=known.mtu if known else None,
        )

    def _pod_facts(self, pod: Pod) -> PodFacts:
        stands = pod.name in self._pods
        network = self._subnets[pod.node.name].bridge.network if stands else None
        return PodFacts(pod.name, pod.node.name, str(pod.address(network)) if network else None)

    def _process_facts(self, name: str) -> ProcessFacts:
        return self._processes.get(name, ProcessFacts())

    def _publish(self) -> None:
        draft = FACTS_FILE.with_suffix(".new")
        draft.write_bytes(msgspec.json.encode(self.facts))
        draft.rename(FACTS_FILE)

    def note_subnet(self, node: Node, subnet: SubnetFile) -> None:
        self._subnets[node.name] = subnet
        self._publish()

    def note_pods(self, pods: tuple[Pod, ...]) -> None:
        self._pods |= {pod.name for pod in pods}
        self._publish()

    def note_ready(self) -> None:
        self._ready = True
        self._publish()

    def start_etcd(self, program: Path, member: EtcdMember) -> Process:
        return self._start(member.name, etcd_command(program, member, self.spec), member.log_file, None)

    def start_daemon(self, name: str) -> Process:
        """Raises LabError if there is no such node or its daemon runs already."""
        node = self._node(name)
        if name in self._running:
            raise LabError(f"the daemon of {name} runs already")
        return self._start(name, daemon_command(node, self.spec), node.log_file, name)

    async def end_daemon(self, name: str, signum: signal.Signals) -> None:
        """Signal the daemon of a node and wait until it has ended.  Raises LabError if there is no such node, if
        its daemon doesn't run, or if it lives on."""
        self._node(name)
        if name not in self._running:
            raise LabError(f"the daemon of {name} does not run: {self._process_facts(name)}")
        process = self._running[name]
        self._asked_to_end.add(process)
        process.send(signum)
        with trio.move_on_after(STOP_PATIENCE):
            await process.ended.wait()
            return
        raise LabError(f"the daemon of {name} still runs {STOP_PATIENCE:.0f} s after {signum.name}")

    async def ask_daemons(self) -> dict[str, Voice]:
        """What each node's daemon says of itself."""
        voices: dict[str, Voice] = {}

        async def query(node: Node) -> None:
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
        """The end of what a node's daemon has written to its log."""
        log_file = self._node(name).log_file
        return last_lines(log_file, count) if log_file.exists() else ()

    def _node(self, name: str) -> Node:
        for node in self.spec.all_nodes:
            if node.name == name:
                return node
        names = ", ".join(node.name for node in self.spec.all_nodes)
        raise LabError(f"there is no node {name!r} in lab {self.spec.name!r}: it has {names}")

    def _start(self, name: str, command: list[str], log_file: Path, network: str | None) -> Process:
        def note_end(process: Process) -> None:
            del self._running[name]
            state = ProcessState.STOPPED if process in self._asked_to_end else ProcessState.DIED
            self._asked_to_end.discard(process)
            self._processes[name] = ProcessFacts(state, process.pid, process.end)
            self._publish()

        process = self.spawner.spawn(command, log_file, network=network, on_end=note_end)
        self._running[name] = process
        self._processes[name] = ProcessFacts(ProcessState.RUNNING, process.pid)
        self._publish()
        return process
