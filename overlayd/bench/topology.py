"""Where a mode plays: a lab of two nodes with a pod each, and programs run in it.

Each program has a session of its own, as a lab's daemons have.  The kernel may schedule by session (sched(7),
autogroup), and a mode whose programs shared one would be scheduled otherwise than one whose programs don't.
"""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from overlayd.bench.failure import BenchError
from overlayd.bench.model import Mode
from overlayd.bench.tools import Tools
from overlayd.core.status.status import DatapathStatus
from overlayd.lab.blueprint import visitor_environment
from overlayd.lab.client import RunningLab
from overlayd.lab.control import Ask
from overlayd.lab.launcher import launched
from overlayd.lab.lifeline import Progress
from overlayd.lab.model import LabNode, LabPod, LabSpec

PATIENCE = 30.0
"""Seconds beyond its proper time that a program may take on a busy machine."""
PLAIN_DEVICE = "plain"
PLAIN_PORT = "8285"
PLAIN_MTU = "1472"
"""The underlay's, less the headers of IPv4 (20 bytes) and UDP (8)."""


@dataclass(frozen=True)
class BenchTopology:
    """`source` and `target` are the pods, on one node each; packets go from the one to the other."""

    mode: Mode
    lab: RunningLab
    spec: LabSpec
    tools: Tools
    addresses: dict[LabPod, str]

    @property
    def source(self) -> LabPod:
        return self.spec.all_pods[0]

    @property
    def target(self) -> LabPod:
        return self.spec.all_pods[1]

    @property
    def target_address(self) -> str:
        return self.addresses[self.target]

    def run(
        self, place: str | None, command: Sequence[str], seconds: float = 0.0, accept: Sequence[int] = (0,)
    ) -> str:
        """What a program that takes so many seconds prints.  Raises BenchError with its complaint, if its exit
        status is none of `accept`."""
        try:
            done = subprocess.run(
                self.lab.entrance(place, command),
                env=visitor_environment(os.environ, self.spec, place),
                capture_output=True,
                text=True,
                check=False,
                timeout=seconds + PATIENCE,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            raise self._failure(place, command, f"it did not end within {seconds + PATIENCE:.0f} s") from None
        if done.returncode not in accept:
            said = done.stderr.strip() or done.stdout.strip()
            raise self._failure(place, command, said or f"exit status {done.returncode}")
        return done.stdout

    def datapath(self) -> DatapathStatus | None:
        """What the source's daemon says of its datapath; None where the kernel carries the packets."""
        answer = self.lab.ask(Ask.STATUS).voices[self.source.node.name].answer
        return answer.status.datapath if answer is not None else None

    @contextmanager
    def running(self, place: str, command: Sequence[str], ready: str) -> Generator[BenchServer]:
        """A program beside others: yields once it has printed a line with the word `ready`, and at the end of the
        block closes its standard input, which is how it learns that it is over."""
        with subprocess.Popen(
            self.lab.entrance(place, command),
            env=visitor_environment(os.environ, self.spec, place),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process:
            server = BenchServer(process)
            try:
                server.wait_said(ready)
                yield server
                server.wait_ended()
            except _Silent as silent:
                raise self._failure(place, command, f"{silent}: {server.said.decode(errors='replace')}") from None
            finally:
                process.kill()

    def _failure(self, place: str | None, command: Sequence[str], reason: str) -> BenchError:
        return BenchError(f"{self.mode}: `{' '.join(command)}` in {place or 'the lab'} failed: {reason}")


class _Silent(Exception):
    """A server did not say or do what it should in time."""


class BenchServer:
    """A running program; `said` is what it has printed so far."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.said = b""

    def wait_said(self, word: str) -> None:
        while word.encode() not in self.said:
            if not self._hear():
                raise _Silent(f"it ended before it said {word!r}")

    def wait_ended(self) -> None:
        assert self._process.stdin is not None  # it is a pipe
        self._process.stdin.close()
        while self._hear():
            pass
        if self._process.wait(PATIENCE):
            raise _Silent(f"exit status {self._process.returncode}")

    def _hear(self) -> bool:
        """False once it will say no more."""
        assert self._process.stdout is not None  # it is a pipe
        if not select.select([self._process.stdout], [], [], PATIENCE)[0]:
            raise _Silent(f"nothing more came from it within {PATIENCE:.0f} s")
        heard = os.read(self._process.stdout.fileno(), 65536)
        self.said += heard
        return bool(heard)


@contextmanager
def built(mode: Mode, tools: Tools) -> Generator[BenchTopology]:
    """A lab of this mode, up and converged; gone at the end of the block.  Raises LabError, BenchError."""
    name = f"bench-{os.getpid()}-{mode}"
    spec = LabSpec(name, nodes=2, pods=1, backend=mode.backend, datapaths=mode.datapaths)
    with ExitStack() as stack:
        held = stack.enter_context(launched(spec, _unseen))
        addresses = {pod.name: pod.address for pod in held.facts.pods}
        topology = BenchTopology(
            mode, held.lab, spec, tools, {pod: addresses[pod.name] or "" for pod in spec.all_pods}
        )
        if mode is Mode.PLAIN:
            _divert(topology, stack)
        yield topology


def _divert(topology: BenchTopology, stack: ExitStack) -> None:
    """Lead the pods' packets through the yardstick, past the routes of the lab's own overlay: the route to the
    single pod is the more specific one."""
    for own, other in ((topology.source, topology.target), (topology.target, topology.source)):
        command = [topology.tools.plain, PLAIN_DEVICE, PLAIN_PORT, str(other.node.underlay)]
        stack.enter_context(topology.running(own.node.name, command, "ready"))
        topology.run(own.node.name, ["ip", "link", "set", PLAIN_DEVICE, "mtu", PLAIN_MTU, "up"])
        topology.run(own.node.name, ["ip", "route", "add", topology.addresses[other], "dev", PLAIN_DEVICE])
        topology.run(own.name, ["ip", "link", "set", "eth0", "mtu", PLAIN_MTU])


@contextmanager
def pinned(topology: BenchTopology, processors: dict[LabNode, int]) -> Generator[None]:
    """All processes of each node on one processor; at the end of the block again on any."""
    everywhere = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    try:
        for node, processor in processors.items():
            _pin(topology, node, str(processor))
        yield
    finally:
        for node in processors:
            _pin(topology, node, everywhere)


def _pin(topology: BenchTopology, node: LabNode, processors: str) -> None:
    for pid in topology.run(None, ["ip", "netns", "pids", node.name]).split():
        command = ["taskset", "--all-tasks", "--cpu-list", "--pid", processors, pid]
        topology.run(None, command, accept=(0, 1))  # 1: it has ended meanwhile, as what a daemon calls does


def _unseen(_progress: Progress) -> None:
    pass
