"""Builds a lab step by step, and names the process that failed if it does not come up."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Mapping

import trio

from overlayd.core.publish.cni import FILE_NAME
from overlayd.core.status.status import Verdict
from overlayd.lab import blueprint
from overlayd.lab.control import DaemonAnswer
from overlayd.lab.lifeline import LaunchStep, Progress
from overlayd.lab.model import HOME, EtcdMember, LabNode, LabPod, LabSpec
from overlayd.lab.processes import Process, last_lines
from overlayd.lab.snapshot import ProcessState
from overlayd.lab.state import LabState

Tell = Callable[[Progress], Awaitable[None]]

POLL = 0.05
"""Seconds between two polls of a state that sends no event."""
LAST_LINES = 12
"""Lines of the log of a failed process that are shown."""


class ProvisionError(Exception):
    """The lab can't be built; `log` has the last lines of the process that failed."""

    def __init__(self, reason: str, log: tuple[str, ...] = ()) -> None:
        super().__init__(reason)
        self.log = log


def patience(spec: LabSpec) -> float:
    """Return the seconds that a lab may take to come up: generous, as machines under test are slow at times."""
    return 60.0 + 5.0 * spec.nodes


def shortcomings(spec: LabSpec, answers: Mapping[str, DaemonAnswer]) -> dict[str, str]:
    """Return why the overlay has not converged, by node; empty when every node is healthy with all its peers."""
    found: dict[str, str] = {}
    for node in spec.all_nodes:
        given = answers[node.name]
        if given.answer is None:
            found[node.name] = given.failure
        elif len(given.answer.status.peers) != spec.nodes - 1:
            found[node.name] = f"it knows {len(given.answer.status.peers)} of its {spec.nodes - 1} peers"
        elif given.answer.verdict is not Verdict.HEALTHY:
            problems = [problem.text for problem in given.answer.status.problems]
            found[node.name] = "; ".join([given.answer.reason, *problems])
    return found


class Provisioner:
    """Builds the lab of a state; `tell` reports progress."""

    def __init__(self, state: LabState, tell: Tell) -> None:
        self._state = state
        self._spec = state.spec
        self._tell = tell

    async def build(self) -> None:
        """Make the lab and wait until its overlay has converged.  Raises ProvisionError, perhaps in a group."""
        with trio.move_on_after(patience(self._spec)):
            await self._build_underlay()
            await self._start_etcd()
            await self._start_nodes()
            await self._wait_converged()
            self._state.note_ready()
            return
        raise self._too_late(await self._state.ask_daemons())

    async def _build_underlay(self) -> None:
        await self._run_ip("underlay", blueprint.underlay_script(self._spec))
        for node in self._spec.all_nodes:
            await self._run_ip(node.name, blueprint.node_script(node), node.name)
            await self._run("a setting is refused", f"{node.name}-icmp", blueprint.UNLIMITED_ICMP, node.name)
        await self._tell(Progress(LaunchStep.NETWORK, 1, 1))

    async def _start_etcd(self) -> None:
        members = [(m, self._state.start(m.name)) for m in self._spec.all_etcd_members]
        for member, process in members:
            await self._wait_serving(member, process)
        blueprint.CONFIG_FILE.write_text(blueprint.network_config(self._spec))
        await self._run("the network config is refused", "config", blueprint.config_command(self._spec))
        await self._tell(Progress(LaunchStep.ETCD, 1, 1))

    async def _wait_serving(self, member: EtcdMember, process: Process) -> None:
        while not await is_serving(member):
            if process.status is not None:
                raise ProvisionError(
                    f"{member.name} ended: {process.end}", last_lines(process.log_file, LAST_LINES)
                )
            await trio.sleep(POLL)

    async def _start_nodes(self) -> None:
        """Start the daemons and give each node its pods.

        A start is bound by the processor, so one more than there are processors run at a time.
        """
        starting = trio.CapacityLimiter((os.cpu_count() or 1) + 1)
        leased = with_pods = 0

        async def start(node: LabNode) -> None:
            nonlocal leased, with_pods
            if self._spec.cni:
                node.cni_dir.mkdir(parents=True)
            async with starting:
                subnet = await self._wait_leased(node, self._state.start(node.name))
            self._state.note_subnet(node, subnet)
            leased += 1
            await self._tell(Progress(LaunchStep.DAEMONS, leased, self._spec.nodes))
            await self._add_pods(node, subnet)
            with_pods += 1
            await self._tell(Progress(LaunchStep.PODS, with_pods, self._spec.nodes))

        async with trio.open_nursery() as nursery:
            for node in self._spec.all_nodes:
                nursery.start_soon(start, node)

    async def _wait_leased(self, node: LabNode, process: Process) -> blueprint.SubnetFileContent:
        awaited = [node.subnet_file, *([node.cni_dir / FILE_NAME] if self._spec.cni else [])]
        while not all(file.exists() for file in awaited):
            if process.status is not None:
                raise self._blame(node.name, f"its daemon ended: {process.end}")
            await trio.sleep(POLL)
        return blueprint.parse_subnet_file(node.subnet_file.read_text())

    async def _add_pods(self, node: LabNode, subnet: blueprint.SubnetFileContent) -> None:
        pods = tuple(pod for pod in self._spec.all_pods if pod.node == node)
        if not pods:
            return
        if self._spec.cni:
            await self._add_pods_by_plugins(node, pods)
            return
        await self._run_ip(f"{node.name}-cni0", blueprint.bridge_script(pods, subnet), node.name)
        for pod in pods:
            await self._run_ip(pod.name, blueprint.pod_script(pod, subnet), pod.name)
        self._state.note_pods(pods)

    async def _add_pods_by_plugins(self, node: LabNode, pods: tuple[LabPod, ...]) -> None:
        for pod in pods:  # one after the other, so that the first gets the first address
            await self._run_ip(f"{node.name}-{pod.name}", f"netns add {pod.name}\n", node.name)
            await self._run_ip(pod.name, "link set lo up\n", pod.name)
            add = [sys.executable, "-m", "overlayd.lab.cni", "add", pod.name]
            await self._run("the CNI plugins refuse", pod.name, add, node.name)
        self._state.note_pods(pods)

    async def _wait_converged(self) -> None:
        total = self._spec.nodes
        while True:
            lacking = shortcomings(self._spec, await self._state.ask_daemons())
            await self._tell(Progress(LaunchStep.OVERLAY, total - len(lacking), total))
            if not lacking:
                return
            for node in self._state.snapshot.nodes:
                if node.daemon.state is ProcessState.DIED:
                    raise self._blame(node.name, f"its daemon ended: {node.daemon.end}")
            await trio.sleep(POLL)

    def _too_late(self, answers: Mapping[str, DaemonAnswer]) -> ProvisionError:
        limit = f"not up within {patience(self._spec):.0f} s"
        for member in self._state.snapshot.etcd:
            if member.process.state is ProcessState.DIED:
                return ProvisionError(f"{member.name} ended: {member.process.end}")
        for node in self._state.snapshot.nodes:
            if node.daemon.state is not ProcessState.WAITING and node.subnet is None:
                return self._blame(node.name, f"{limit}: it has leased no subnet")
        for name, reason in shortcomings(self._spec, answers).items():
            return self._blame(name, f"{limit}: {reason}")
        return ProvisionError(limit)

    def _blame(self, name: str, reason: str) -> ProvisionError:
        return ProvisionError(f"{name}: {reason}", self._state.last_lines(name, LAST_LINES))

    async def _run_ip(self, name: str, script: str, network: str | None = None) -> None:
        path = HOME / "build" / f"{name}.ip"
        path.write_text(script)
        await self._run(f"`ip -batch {path}` failed", name, ["ip", "-batch", str(path)], network)

    async def _run(self, complaint: str, name: str, command: list[str], network: str | None = None) -> None:
        log_file = HOME / "build" / f"{name}.log"
        process = self._state.spawner.spawn(command, log_file, network=network)
        await process.ended.wait()
        if not process.succeeded:
            raise ProvisionError(complaint, last_lines(process.log_file, LAST_LINES))


async def is_serving(member: EtcdMember) -> bool:
    """Tell whether this etcd server reports itself healthy, which it does once it has a leader."""
    try:
        async with await trio.open_tcp_stream(str(member.address), 2379) as stream:
            await stream.send_all(b"GET /health HTTP/1.0\r\n\r\n")
            answer = b"".join([chunk async for chunk in stream])
    except (OSError, trio.BrokenResourceError):
        return False
    return b'"health":"true"' in answer
