"""A flow between two pods that goes on while something is done to the nodes: numbered datagrams, and a TCP stream
with a checksum.  `python -m support.flow serve ADDRESS` and `… send ADDRESS` run in the pods; the sender ends when
its standard input closes, and prints what became of everything.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from overlayd.lab.launcher import HeldLab
from support.lab import OVERLAYD

PORT = 7007
PACE = 0.002
"""Seconds between two datagrams: 500 a second, so a gap of one is a gap of 2 ms."""
LATEST = 0.5
"""Seconds of silence after which nothing more is on its way."""
PATIENCE = 60.0
"""Seconds that TCP may take to recover what was lost last."""


@dataclass
class FlowOutcome:
    """Datagrams sent and answered; the longest time without an answer, in seconds; bytes of the stream, and
    whether they arrived unharmed."""

    sent: int = 0
    answered: int = 0
    longest_gap: float = 0.0
    stream_bytes: int = 0
    stream_intact: bool = False

    @property
    def lost(self) -> int:
        return self.sent - self.answered


class TrafficFlow:
    """The sender's end, as the test holds it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def finish(self) -> FlowOutcome:
        out, err = self._process.communicate(timeout=PATIENCE + 30)
        assert self._process.returncode == 0, err
        return FlowOutcome(**json.loads(out))


@contextmanager
def flow(lab: HeldLab, sender: str, receiver: str, address: str) -> Iterator[TrafficFlow]:
    """A flow from one pod to another, whose address it is; it runs when the context begins."""

    def inside(pod: str, *arguments: str) -> subprocess.Popen[str]:
        enter = [*OVERLAYD, "lab", "exec", "--name", lab.snapshot.spec.name, pod, "--"]
        return subprocess.Popen(
            [*enter, sys.executable, "-m", "support.flow", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        )

    server = inside(receiver, "serve", address)
    try:
        assert server.stdout is not None
        server.stdout.readline()
        client = inside(sender, "send", address)
        try:
            assert client.stdout is not None
            client.stdout.readline()
            yield TrafficFlow(client)
        finally:
            client.kill()
            client.wait()
    finally:
        server.kill()
        server.wait()


def serve(address: str) -> None:
    """Echoes datagrams; answers a stream with its hash once it has ended."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
        socket.create_server((address, PORT)) as door,
    ):
        datagrams.bind((address, PORT))
        threading.Thread(target=_echo, args=(datagrams,), daemon=True).start()
        print("ready", flush=True)
        stream, _ = door.accept()
        with stream:
            digest = hashlib.sha256()
            while chunk := stream.recv(65536):
                digest.update(chunk)
            stream.sendall(digest.digest())


def _echo(datagrams: socket.socket) -> None:
    while True:
        datagrams.sendto(*datagrams.recvfrom(2048))


def send(address: str) -> None:
    stop = threading.Event()
    outcome = FlowOutcome()
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
        socket.create_connection((address, PORT), timeout=PATIENCE) as stream,
    ):
        datagrams.connect((address, PORT))
        datagrams.settimeout(0.5)
        threads = [
            threading.Thread(target=_ask, args=(datagrams, outcome, stop)),
            threading.Thread(target=_listen, args=(datagrams, outcome, stop)),
            threading.Thread(target=_stream, args=(stream, outcome, stop)),
        ]
        for thread in threads:
            thread.start()
        print("ready", flush=True)
        sys.stdin.read()
        stop.set()
        for thread in threads:
            thread.join()
    print(json.dumps(vars(outcome)))


def _ask(datagrams: socket.socket, outcome: FlowOutcome, stop: threading.Event) -> None:
    while not stop.wait(PACE):
        with suppress(OSError):  # an ICMP error about an earlier one: this one is lost as well
            datagrams.send(b"%d" % outcome.sent)
        outcome.sent += 1


def _listen(datagrams: socket.socket, outcome: FlowOutcome, stop: threading.Event) -> None:
    last = time.monotonic()
    while not (stop.is_set() and time.monotonic() - last > LATEST):
        try:
            datagrams.recv(2048)
        except OSError:
            continue
        now = time.monotonic()
        outcome.answered += 1
        outcome.longest_gap = max(outcome.longest_gap, now - last)
        last = now


def _stream(stream: socket.socket, outcome: FlowOutcome, stop: threading.Event) -> None:
    digest = hashlib.sha256()
    while not stop.wait(0.005):
        chunk = os.urandom(4096)
        stream.sendall(chunk)
        digest.update(chunk)
        outcome.stream_bytes += len(chunk)
    stream.shutdown(socket.SHUT_WR)
    answer = b"".join(iter(lambda: stream.recv(64), b""))
    outcome.stream_intact = answer == digest.digest()


if __name__ == "__main__":
    {"serve": serve, "send": send}[sys.argv[1]](sys.argv[2])
