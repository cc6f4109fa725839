"""The topology of a mode: a lab of two nodes with a pod each, and the programs that run in it.

Each program has a session of its own, as a lab's daemons have.  The kernel may schedule by session (sched(7),
autogroup), so modes whose programs share a session would be scheduled in another way than the others.
"""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from overlayd.bench.failure import BenchError
from overlayd.bench.model import Mode
from overlayd.bench.tools import Tools
from overlayd.core.status.status import DatapathStatus, StatusAnswer
from overlayd.lab.blueprint import visitor_environment
from overlayd.lab.client import RunningLab
from overlayd.lab.control import Ask
from overlayd.lab.model import LabNode, LabPod, LabSpec

PATIENCE = 30.0
"""Seconds beyond its expected time that a program may take on a busy machine."""


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

    @property
    def pairs(self) -> tuple[tuple[LabPod, LabPod], ...]:
        """Each pod with the other."""
        return (self.source, self.target), (self.target, self.source)

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

    def status(self, node: LabNode) -> StatusAnswer | None:
        """Query a node's daemon; None if it does not answer."""
        return self.lab.ask(Ask.STATUS).answers[node.name].answer

    def datapath(self) -> DatapathStatus | None:
        """Query the datapath of the source's daemon; None where the kernel carries the packets."""
        answer = self.status(self.source.node)
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
