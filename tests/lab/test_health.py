"""A real daemon as machines see it, by HTTP and by sd_notify, while etcd comes and goes and the pods talk on."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from overlayd.lab.control import Ask
from overlayd.lab.launcher import HeldLab
from overlayd.lab.snapshot import ProcessState
from support.lab import OVERLAYD, run_inside
from support.watched import PORT

NODE = "node3"
PATIENCE = 30.0
WATCHED = str(Path(__file__).parents[1] / "support/watched.py")


class Watched:
    """A daemon of the test's own on a node of the lab, and the news of it."""

    def __init__(self, lab: HeldLab, *options: str) -> None:
        self._lab = lab
        command = [*OVERLAYD, "run", "--iface", "eth0", "--node-name", NODE, "--listen", str(PORT), *options]
        enter = [*OVERLAYD, "lab", "exec", "--name", lab.snapshot.spec.name, NODE, "--", sys.executable, WATCHED]
        self._process = subprocess.Popen(
            [*enter, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._news: queue.Queue[str] = queue.Queue()
        self.heard: list[str] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._news.put(line)

    def wait_for(self, *texts: str, patience: float = PATIENCE) -> str:
        """Until there was a line with each of these texts, in any order; the last of those lines."""
        deadline = time.monotonic() + patience
        missing = {*texts}
        while True:
            try:
                line = self._news.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"never heard {missing}, but {self.heard}") from None
            if line != "systemd WATCHDOG=1\n":
                self.heard.append(line)
            missing -= (found := {text for text in missing if text in line})
            if found and not missing:
                return line

    def end(self) -> None:
        assert self._process.stdin is not None
        if not self._process.stdin.closed:
            self._process.stdin.close()
            self.wait_for("ended 0")
            self._process.wait(PATIENCE)


def start(lab: HeldLab, name: str) -> None:
    """If it does not run already."""
    snapshot = lab.lab.snapshot()
    states = {node.name: node.daemon.state for node in snapshot.nodes}
    states |= {member.name: member.process.state for member in snapshot.etcd}
    if states[name] is not ProcessState.RUNNING:
        lab.lab.ask(Ask.START, name)


@pytest.fixture
def watched(lab: HeldLab) -> Generator[Watched]:
    """A daemon that starts while etcd is away."""
    lab.lab.ask(Ask.STOP, NODE)
    lab.lab.ask(Ask.STOP, "etcd1")
    daemon = Watched(lab, "--lease-ttl", "30")
    try:
        yield daemon
    finally:
        start(lab, "etcd1")
        daemon.end()
        start(lab, NODE)


def pods_talk(lab: HeldLab) -> None:
    """The lab's own check of all pairs."""
    command = [*OVERLAYD, "lab", "test", "--name", lab.snapshot.spec.name, "pod-pod-icmp"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_a_daemon_that_starts_while_etcd_is_away(lab: HeldLab, watched: Watched) -> None:
    watched.wait_for("/healthz 200 alive")
    assert watched.wait_for("store-unreachable").startswith(
        "/readyz 503 not ready: this node's lease is unclaimed"
    )
    watched.wait_for("WATCHDOG=1")
    pods_talk(lab)
    second = run_inside(lab, NODE, "overlayd", "run", "--iface", "eth0", "--listen", str(PORT))
    assert (second.returncode, "another overlayd (process" in second.stderr) == (1, True), second.stderr
    assert not any("READY=1" in line for line in watched.heard)
    start(lab, "etcd1")
    watched.wait_for("/readyz 200 ready", "READY=1")

    status = json.loads(run_inside(lab, NODE, "overlayd", "status", "--json").stdout)
    told = json.loads(fetch(lab, "/status"))
    assert told["status"]["lease"]["subnet"] == status["status"]["lease"]["subnet"]
    assert (told.keys(), told["status"].keys()) == (status.keys(), status["status"].keys())
    assert '\noverlayd_peers{state="in_sync"} 2.0\n' in fetch(lab, "/metrics")
    watched.end()
    assert any("STOPPING=1" in line for line in watched.heard)


def fetch(lab: HeldLab, page: str) -> str:
    script = f"import urllib.request as r; print(r.urlopen('http://127.0.0.1:{PORT}{page}').read().decode())"
    done = run_inside(lab, NODE, sys.executable, "-c", script)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.long
def test_etcd_is_away_for_longer_than_the_lease(lab: HeldLab, watched: Watched) -> None:
    start(lab, "etcd1")
    watched.wait_for("/readyz 200 ready")
    lab.lab.ask(Ask.STOP, "etcd1")
    watched.wait_for(
        "/readyz 503 not ready: this node's lease is fenced: it could not be renewed in time", patience=60
    )
    pods_talk(lab)
    start(lab, "etcd1")
    watched.wait_for("/readyz 200 ready")
    pods_talk(lab)
