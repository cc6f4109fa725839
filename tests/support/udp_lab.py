"""A lab over the udp backend, for tests that ask much of it; its nodes run the two datapaths in turn."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO

import pytest

from overlayd.core.status.status import DatapathStatus, StatusAnswer, Verdict
from overlayd.lab.blueprint import visitor_environment
from overlayd.lab.control import Ask
from overlayd.lab.launcher import HeldLab
from overlayd.lab.model import LabSpec
from support.lab import Labs

TESTS = Path(__file__).parents[1]
SPEC = LabSpec(nodes=3, pods=2, backend="udp", datapaths=("c", "python"))
DEVICE = "ovl.udp"
PATIENCE = 30.0
"""Seconds for what takes one or two."""

_ENDING = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
"""
_PING = """
import socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as s:
    s.settimeout(0.3)
    for n in range(3):
        s.sendto(struct.pack("!BBHHH", 8, 0, 0xF7FF - 7 - n, 7, n), (sys.argv[1], 0))
        try:
            while s.recv(99)[20:28] != struct.pack("!BBHHH", 0, 0, 0xFFFF - 7 - n, 7, n):
                pass
            sys.exit()
        except TimeoutError:
            pass
sys.exit("no echo")
"""


class UdpLab:
    """The session's lab of this kind.  Who changes something in it puts it back."""

    def __init__(self, labs: Labs) -> None:
        if find_spec("overlayd_backends.udp._datapath") is None:
            pytest.skip("needs the C datapath, which is built by `pip install` where a compiler is")
        self.held: HeldLab = labs.get(SPEC)
        self.nodes = tuple(node.name for node in self.held.snapshot.spec.all_nodes)
        self.addresses = {pod.name: pod.address or "" for pod in self.held.snapshot.pods}

    @contextmanager
    def start(self, where: str | None, *command: str) -> Iterator[subprocess.Popen[str]]:
        """A command on a node, in a pod, or in the root namespace; it is killed at the end of the block."""
        environment = visitor_environment(os.environ, self.held.snapshot.spec, where)
        with subprocess.Popen(
            self.held.lab.entrance(where, command),
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def run(self, where: str | None, *command: str) -> subprocess.CompletedProcess[str]:
        with self.start(where, *command) as process:
            said, complained = process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess(command, process.returncode, said, complained)

    def shell(self, where: str | None, script: str) -> str:
        done = self.run(where, "sh", "-ec", script)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start_python(
        self, where: str | None, script: str, *arguments: object
    ) -> AbstractContextManager[subprocess.Popen[str]]:
        return self.start(where, sys.executable, "-c", script, *map(str, arguments))

    @contextmanager
    def serving(self, where: str | None, script: str) -> Iterator[IO[str]]:
        """A server in Python, whose output this is, from when it has said `ready` until the end of the block.

        It ends with its input: what `nsenter` starts in another PID namespace outlives a killed `nsenter`.
        """
        with self.start_python(where, _ENDING + script) as process:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                pytest.fail(f"{where}: {process.communicate()[1]}")
            yield process.stdout
            process.communicate(timeout=PATIENCE)

    def python(self, where: str | None, script: str, *arguments: object) -> str:
        done = self.run(where, sys.executable, "-c", script, *map(str, arguments))
        assert done.returncode == 0, done.stderr
        return done.stdout

    def answer(self, node: str) -> StatusAnswer:
        given = self.held.lab.ask(Ask.STATUS).answers[node]
        assert given.answer is not None, given.failure
        return given.answer

    def subnet(self, node: str) -> str:
        lease = self.answer(node).status.lease
        assert lease is not None
        return lease.subnet

    def datapath(self, node: str) -> DatapathStatus:
        found = self.answer(node).status.datapath
        assert found is not None
        return found

    def is_healthy(self) -> bool:
        answers = self.held.lab.ask(Ask.STATUS).answers.values()
        return all(given.answer is not None and given.answer.verdict is Verdict.HEALTHY for given in answers)

    def reaches(self, source: str, target: str) -> bool:
        return self.run(source, sys.executable, "-c", _PING, self.addresses[target]).returncode == 0

    def works(self) -> bool:
        """Everybody is healthy, and a packet passes the first two nodes both ways."""
        return self.is_healthy() and self.reaches("pod1-1", "pod2-1")


@contextmanager
def helper(lab: UdpLab, where: str | None, *arguments: str) -> Iterator[list[str]]:
    """A program of tests/support at work; it ends when its input closes, and the list has its last words then."""
    command = ["env", f"PYTHONPATH={TESTS}", sys.executable, "-m", *arguments]
    with lab.start(where, *command) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        if said != "ready\n":
            pytest.fail(f"{arguments[0]}: {said}{process.communicate()[1]}")
        last_words: list[str] = []
        yield last_words
        said, complained = process.communicate(timeout=30)
        last_words += said.split()
    assert process.returncode == 0, complained


def transfer(lab: UdpLab, where: str, *arguments: object) -> None:
    """Ask of support.transfers; what came otherwise than it went fails the test."""
    command = ["env", f"PYTHONPATH={TESTS}", sys.executable, "-m", "support.transfers", *map(str, arguments)]
    with lab.start(where, *command) as process:
        said, complained = process.communicate(timeout=120)
    assert process.returncode == 0, said + complained


def until(condition: Callable[[], bool], patience: float = PATIENCE) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)
