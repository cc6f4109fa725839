"""A lab that is up: what it says of itself, who may ask it, how one enters it."""

from __future__ import annotations

import dataclasses
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator

import pytest

from overlayd.lab.client import RunningLab, find_lab, wait_ended
from overlayd.lab.control import Ask, LabError, NoSuchLab, Reply, ask, socket_name
from overlayd.lab.launcher import HeldLab, launched
from overlayd.lab.lifeline import LaunchStep, Progress
from overlayd.lab.model import LabSpec
from overlayd.lab.overview import Overview, overview
from overlayd.lab.snapshot import ProcessState
from support.host import NOBODY
from support.lab import Labs, require_namespaces

PATIENCE = 60.0


def overlayd(lab: HeldLab, verb: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "overlayd", "lab", verb, "--name", lab.lab.name, *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)


def view_of(reply: Reply) -> Overview:
    assert reply.snapshot is not None
    return overview(reply.snapshot, reply.answers)


def wait_healthy(lab: RunningLab) -> Overview:
    deadline = time.monotonic() + PATIENCE
    while not (view := view_of(lab.ask(Ask.STATUS))).healthy and time.monotonic() < deadline:
        time.sleep(0.1)
    return view


def test_exec_passes_on_status_input_and_environment(lab: HeldLab) -> None:
    assert overlayd(lab, "exec", "pod1-2", "--", "sh", "-c", "exit 7").returncode == 7
    assert overlayd(lab, "exec", "node2", "cat", stdin="a line\n").stdout == "a line\n"
    assert overlayd(lab, "exec", "node1", "--", "no-such-program").returncode == 127
    where = overlayd(lab, "exec", "node3", "--", "pwd").stdout.strip()
    assert where == os.getcwd()
    shown = overlayd(lab, "exec", "node3", "--", "overlayd", "status", "--json")
    assert json.loads(shown.stdout)["status"]["node"] == "node3"
    links = overlayd(lab, "exec", "pod3-1", "--", "ls", "/sys/class/net").stdout.split()
    assert links == ["eth0", "lo"]


def test_exec_hands_the_terminal_on(lab: HeldLab) -> None:
    ours, theirs = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "overlayd",
        "lab",
        "exec",
        "--name",
        lab.lab.name,
        "node1",
        "--",
        "test",
        "-t",
        "0",
    ]
    try:
        assert subprocess.run(command, stdin=theirs, check=False).returncode == 0
        assert subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode == 1
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_shell_shows_where_one_is(lab: HeldLab) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "overlayd", "lab", "shell", "--name", lab.lab.name, "pod2-1"]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True) as shell:
        os.close(theirs)
        seen = b""
        while b"$ " not in seen and b"# " not in seen:
            seen += os.read(ours, 1024)
        assert f"[{lab.lab.name}:pod2-1]".encode() in seen
        os.write(ours, b"exit 5\n")
        assert shell.wait(PATIENCE) == 5
    os.close(ours)


def test_unknown_names_are_refused_with_the_known_ones(lab: HeldLab) -> None:
    done = overlayd(lab, "exec", "pod9-1", "--", "true")
    assert done.returncode == 1
    assert "there is no 'pod9-1'" in done.stderr
    assert "node1, node2, node3, pod1-1, pod1-2, pod2-1, pod2-2, pod3-1, pod3-2" in done.stderr
    done = overlayd(lab, "logs", "pod1-1")
    assert done.returncode == 2
    assert "node1, node2, node3, etcd1, etcd, holder" in done.stderr
    with pytest.raises(LabError, match=r"there is no node 'pod1-1' .* it has node1, node2, node3"):
        lab.lab.ask(Ask.STOP, "pod1-1")


def test_logs_are_those_of_the_source(lab: HeldLab) -> None:
    assert "peer joined" in overlayd(lab, "logs", "node1").stdout
    assert lab.lab.name in overlayd(lab, "logs", "holder").stdout


def test_a_name_that_is_taken_is_refused(lab: HeldLab) -> None:
    done = overlayd(lab, "up")
    assert done.returncode == 1
    assert f"a lab named '{lab.lab.name}' is up already" in done.stderr


def test_a_daemon_that_dies_is_named_and_can_be_started_again(lab: HeldLab) -> None:
    process = lab.lab.snapshot().node("node2").daemon
    assert overlayd(lab, "exec", "node1", "--", "kill", "-KILL", str(process.pid)).returncode == 0
    deadline = time.monotonic() + PATIENCE
    while lab.lab.snapshot().node("node2").daemon.state is ProcessState.RUNNING and time.monotonic() < deadline:
        time.sleep(0.05)
    shown = overlayd(lab, "status")
    assert shown.returncode == 1
    assert "node2: its daemon died (SIGKILL)" in shown.stdout
    assert f"`overlayd lab logs --name {lab.lab.name} node2`" in shown.stdout

    lab.lab.ask(Ask.START, "node2")
    assert wait_healthy(lab.lab).problems == ()


def test_daemons_are_stopped_and_started_from_inside(lab: HeldLab) -> None:
    script = "from overlayd.lab.control import Ask, ask_from_inside as ask; ask(Ask.{}, 'node3')"

    def inside(verb: str) -> subprocess.CompletedProcess[str]:
        return overlayd(lab, "exec", "node1", "--", sys.executable, "-c", script.format(verb))

    assert inside("STOP").returncode == 0
    stopped = lab.lab.snapshot().node("node3").daemon
    assert (stopped.state, stopped.end) == (ProcessState.STOPPED, "exit status 0")
    assert "does not run: stopped (exit status 0)" in inside("STOP").stderr
    assert inside("START").returncode == 0
    assert "the daemon of node3 runs already" in inside("START").stderr
    assert inside("KILL").returncode == 0
    killed = lab.lab.snapshot().node("node3").daemon
    assert (killed.state, killed.end) == (ProcessState.STOPPED, "SIGKILL")
    assert inside("START").returncode == 0
    assert wait_healthy(lab.lab).problems == ()


def test_strangers_get_no_answer(lab: HeldLab) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: to become another user")

    def as_stranger() -> int:
        os.setuid(NOBODY)
        try:
            ask(socket_name(lab.lab.name, uid=0), Ask.DOWN)
        except (LabError, ConnectionError):  # it hangs up before or after our request is in its buffer
            return 0
        return 1

    assert in_a_child(as_stranger) == 0
    assert lab.lab.snapshot().ready


def test_a_stranger_who_takes_the_name_is_found_out() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: to become another user")
    name = f"stolen-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(socket_name(name))
        ready, listening = os.pipe()

        def as_stranger() -> int:
            os.setuid(NOBODY)
            sock.listen()
            os.write(listening, b".")
            signal.pause()
            return 0

        child = fork(as_stranger)
        try:
            os.read(ready, 1)
            with pytest.raises(LabError, match=f"of user {NOBODY}, who is not you, holds the name"):
                find_lab(name)
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(ready)
            os.close(listening)


def in_a_child(call: Callable[[], int]) -> int:
    _, status = os.waitpid(fork(call), 0)
    return os.waitstatus_to_exitcode(status)


def fork(call: Callable[[], int]) -> int:
    child = os.fork()
    if child == 0:
        try:
            os._exit(call())
        finally:  # whatever is raised must not run the rest of the tests a second time
            os._exit(99)
    return child


@pytest.fixture
def small() -> Generator[HeldLab]:
    require_namespaces()
    with launched(LabSpec(f"small-{os.getpid()}", nodes=1, pods=0), lambda _progress: None) as held:
        yield held


def test_a_holder_that_does_not_listen_is_ended_all_the_same(small: HeldLab) -> None:
    os.kill(small.lab.pid, signal.SIGSTOP)
    small.lab.end(patience=0.2)
    with pytest.raises(NoSuchLab):
        find_lab(small.lab.name)


def test_kill_is_a_way_to_end_a_lab(small: HeldLab) -> None:
    holder = os.pidfd_open(small.lab.pid)
    os.kill(small.lab.pid, signal.SIGTERM)
    assert wait_ended(holder, PATIENCE)
    os.close(holder)
    with pytest.raises(NoSuchLab):
        find_lab(small.lab.name)


def test_twenty_nodes_converge() -> None:
    require_namespaces()
    seen: list[Progress] = []
    with launched(LabSpec(f"twenty-{os.getpid()}", nodes=20), seen.append) as held:
        view = view_of(held.lab.ask(Ask.STATUS))
    assert [(node.verdict, node.in_sync) for node in view.nodes] == [("healthy", 19)] * 20
    assert len({node.subnet for node in view.nodes}) == 20
    assert all(pod.address for node in view.nodes for pod in node.pods)
    assert [progress.step for progress in seen if progress.done == progress.of and progress.of == 1] == [
        LaunchStep.NETWORK,
        LaunchStep.ETCD,
    ]


def test_host_gw_comes_up_too(labs: Labs) -> None:
    held = labs.get(LabSpec(nodes=2, backend="host-gw"))
    assert dataclasses.replace(held.snapshot.spec, name="") == LabSpec("", nodes=2, backend="host-gw")
    assert {node.mtu for node in held.snapshot.nodes} == {1500}
    assert wait_healthy(held.lab).problems == ()
