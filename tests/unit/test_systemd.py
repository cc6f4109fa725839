"""What systemd is told, and when: over real sockets, at which it listens by path or by an abstract name."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from overlayd.core.status.health import answer
from overlayd.core.status.status import LeaseStatus, PeerState, PeerStatus, ProblemStatus, Status, UnderlayStatus
from overlayd.host.systemd import (
    NotifyError,
    Supervisor,
    Told,
    compose_news,
    keep_informed,
    take_supervisor,
)

NOW = 100_000.0
BARE = Status("0.1.0", NOW, 30.0, "node1", "ab12", NOW, "unclaimed", in_sync=False, revision=0)
PEER = PeerStatus("node2", "10.244.8.0/24", "10.99.0.2", PeerState.IN_SYNC, NOW)
replace = msgspec.structs.replace
GOOD = replace(
    BARE,
    belief="held",
    lease=LeaseStatus("10.244.7.0/24", NOW, NOW + 86_000),
    in_sync=True,
    programmed=True,
    network="10.244.0.0/16",
    device="ovl.1",
    underlay=UnderlayStatus("eth0", "10.99.0.1", "10.99.0.1", 1500),
    peers=(PEER,),
)


def test_ready_is_said_once_and_status_when_it_changes() -> None:
    lines, told = compose_news(answer(BARE, NOW), Told(), watchdog=False)
    assert lines == ["STATUS=degraded: this node's lease is unclaimed"]
    assert compose_news(answer(BARE, NOW), told, watchdog=False) == ([], told)
    lines, told = compose_news(answer(GOOD, NOW), told, watchdog=False)
    assert lines == ["READY=1", "STATUS=healthy: 10.244.7.0/24, 1/1 peers"]
    assert compose_news(answer(GOOD, NOW + 1), told, watchdog=False) == ([], told)
    fenced = replace(GOOD, belief="fenced", problems=(ProblemStatus("store-unreachable", "x"),))
    lines, told = compose_news(answer(fenced, NOW), told, watchdog=False)
    assert lines == ["STATUS=cannot tell: this node's lease is fenced (store-unreachable)"]
    assert compose_news(answer(GOOD, NOW), told, watchdog=False)[0] == ["STATUS=healthy: 10.244.7.0/24, 1/1 peers"]


def test_signs_of_life_stop_when_the_loop_has_stopped() -> None:
    assert "WATCHDOG=1" in compose_news(answer(BARE, NOW), Told(), watchdog=True)[0], "alive, though not ready"
    assert "WATCHDOG=1" not in compose_news(answer(GOOD, NOW + 61), Told(), watchdog=True)[0]


def test_the_environment_names_the_supervisor_and_children_do_not_see_it() -> None:
    environ = {"NOTIFY_SOCKET": "@up", "WATCHDOG_USEC": "90000000", "WATCHDOG_PID": "17", "PATH": "/bin"}
    assert take_supervisor(environ, pid=17) == Supervisor("\0up", watchdog=90.0)
    assert environ == {"PATH": "/bin"}
    assert take_supervisor(environ, pid=17) is None
    assert take_supervisor({"NOTIFY_SOCKET": "/run/n"}, pid=17) == Supervisor("/run/n")
    others = {"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "18"}
    assert take_supervisor(others, pid=17) == Supervisor("/run/n")


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"NOTIFY_SOCKET": "notify"}, "NOTIFY_SOCKET='notify' is neither an absolute path nor"),
        ({"NOTIFY_SOCKET": "@"}, "NOTIFY_SOCKET='@' is neither"),
        ({"NOTIFY_SOCKET": "vsock:2:1"}, "NOTIFY_SOCKET='vsock:2:1' is neither"),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "soon"}, "WATCHDOG_USEC='soon' is not a number of microseconds"),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "0"}, "WATCHDOG_USEC='0' is not"),
    ],
)
def test_an_environment_that_makes_no_sense_is_refused(environ: dict[str, str], said: str) -> None:
    with pytest.raises(NotifyError, match=said):
        take_supervisor(environ, pid=17)


@contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address)
        sock.setblocking(False)
        yield sock


def heard(sock: socket.socket) -> list[str]:
    lines = []
    while True:
        try:
            lines += sock.recv(4096).decode().split("\n")
        except BlockingIOError:
            return lines


@pytest.mark.parametrize("kind", ["path", "abstract"])
async def test_a_life_as_systemd_sees_it(
    kind: str, autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    where = str(tmp_path / "notify") if kind == "path" else f"@overlayd-test-{os.getpid()}"
    environ = {"NOTIFY_SOCKET": where, "WATCHDOG_USEC": "20000000"}
    supervisor = take_supervisor(environ, pid=1)
    assert supervisor is not None
    status = BARE
    with listening(supervisor.address) as systemd:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_informed, supervisor, lambda: answer(status, NOW + trio.current_time()))
            await trio.sleep(5.5)
            lines = heard(systemd)
            assert lines[0].startswith("STATUS=degraded")
            assert lines.count("WATCHDOG=1") == 6, "once a second until it is ready"
            assert "READY=1" not in lines
            status = GOOD
            await trio.sleep(1)
            assert heard(systemd)[:2] == ["READY=1", "STATUS=healthy: 10.244.7.0/24, 1/1 peers"]
            for _ in range(5):
                await trio.sleep(10)
                assert heard(systemd) == ["WATCHDOG=1"]
            await trio.sleep(30)  # the status is of the beginning still: the loop hangs
            heard(systemd)
            await trio.sleep(30)
            [line] = {line.partition(":")[0] for line in heard(systemd)}
            assert line == "STATUS=cannot tell"
            nursery.cancel_scope.cancel()
        assert heard(systemd) == ["STOPPING=1"]


async def test_what_could_not_be_said_is_said_again(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    where = str(tmp_path / "notify")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_informed, Supervisor(where), lambda: answer(GOOD, NOW))
        await trio.sleep(5)
        assert [record.getMessage() for record in caplog.records] == ["systemd can't be told"]
        assert caplog.records[0].levelno == logging.WARNING
        with listening(where) as systemd:
            await trio.sleep(1.5)
            assert heard(systemd)[0] == "READY=1"
        nursery.cancel_scope.cancel()
