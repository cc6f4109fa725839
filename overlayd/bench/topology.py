"""The topology of a mode: a lab of two nodes with a pod each, and the programs that run in it.

Each program has a session of its own, as a lab's daemons have.  The kernel may schedule by session (sched(7),
autogroup), so modes whose programs share a session would be scheduled in another way than the others.
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
"""Seconds beyond its expected time that a program may take on a busy machine."""
PLAIN_DEVICE = "plain"
PLAIN_PORT = "8285"
PLAIN_MTU = "1472"
"""The underlay's MTU, less the headers of IPv4 (20 bytes) and UDP (8)."""


@dataclass(frozen=True)
class BenchTopology:
    """A mode's lab; packets go from the pod `source` on one node to the pod `target` on the other."""

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
        """Run a program that takes so many seconds; its output.

        Raises BenchError with its error message if its exit status is not in `accept`.
        """
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
        """Query the datapath of the source's daemon; None where the kernel carries the packets."""
        answer = self.lab.ask(Ask.STATUS).answers[self.source.node.name].answer
        return answer.status.datapath if answer is not None else None

    @contextmanager
    def running(self, place: str, command: Sequence[str], ready: str) -> Generator[BenchServer]:
        """Run a program in the background: yields once it has printed the word `ready`.

        The end of the block closes its standard input, on which it ends.
        """
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
                server.wait_printed(ready)
                yield server
                server.wait_ended()
            except _ServerError as error:
                raise self._failure(place, command, f"{error}: {server.output.decode(errors='replace')}") from None
            finally:
                process.kill()

    def _failure(self, place: str | None, command: Sequence[str], reason: str) -> BenchError:
        return BenchError(f"{self.mode}: `{' '.join(command)}` in {place or 'the lab'} failed: {reason}")


class _ServerError(Exception):
    """A server did not print what it should, or did not end, in time."""


class BenchServer:
    """A running program; `output` is what it has printed so far."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.output = b""

    def wait_printed(self, word: str) -> None:
        while word.encode() not in self.output:
            if not self._read():
                raise _ServerError(f"it ended before it printed {word!r}")

    def wait_ended(self) -> None:
        assert self._process.stdin is not None  # it is a pipe
        self._process.stdin.close()
        while self._read():
            pass
        if self._process.wait(PATIENCE):
            raise _ServerError(f"exit status {self._process.returncode}")

    def _read(self) -> bool:
        """Read more output; False at its end."""
        assert self._process.stdout is not None  # it is a pipe
        if not select.select([self._process.stdout], [], [], PATIENCE)[0]:
            raise _ServerError(f"it printed nothing more within {PATIENCE:.0f} s")
        chunk = os.read(self._process.stdout.fileno(), 65536)
        self.output += chunk
        return bool(chunk)


@contextmanager
def built(mode: Mode, tools: Tools) -> Generator[BenchTopology]:
    """Launch the lab of a mode; it is gone at the end of the block.  Raises LabError, BenchError."""
    name = f"bench-{os.getpid()}-{mode}"
    spec = LabSpec(name, nodes=2, pods=1, backend=mode.backend, datapaths=mode.datapaths)
    with ExitStack() as stack:
        held = stack.enter_context(launched(spec, _unseen))
        addresses = {pod.name: pod.address for pod in held.snapshot.pods}
        topology = BenchTopology(
            mode, held.lab, spec, tools, {pod: addresses[pod.name] or "" for pod in spec.all_pods}
        )
        if mode is Mode.PLAIN:
            _divert(topology, stack)
        yield topology


def _divert(topology: BenchTopology, stack: ExitStack) -> None:
    """Route the pods' packets through the baseline, instead of the lab's own overlay.

    The route to a single pod is more specific than the overlay's.
    """
    for own, other in ((topology.source, topology.target), (topology.target, topology.source)):
        command = [topology.tools.plain, PLAIN_DEVICE, PLAIN_PORT, str(other.node.underlay)]
        stack.enter_context(topology.running(own.node.name, command, "ready"))
        topology.run(own.node.name, ["ip", "link", "set", PLAIN_DEVICE, "mtu", PLAIN_MTU, "up"])
        topology.run(own.node.name, ["ip", "route", "add", topology.addresses[other], "dev", PLAIN_DEVICE])
        topology.run(own.name, ["ip", "link", "set", "eth0", "mtu", PLAIN_MTU])


@contextmanager
def pinned(topology: BenchTopology, processors: dict[LabNode, int]) -> Generator[None]:
    """Pin all processes of each node to one processor; at the end of the block they may run on any again."""
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
        topology.run(None, command, accept=(0, 1))  # 1: it has ended meanwhile, as programs that a daemon calls do


def _unseen(_progress: Progress) -> None:
    pass
