"""The C extension's thin layer: what it takes, what it refuses, and that it lets go of what it holds.

That it follows the rules is shown by tests/properties/test_udp_engines.py and tests/kernel/test_udp_datapath.py.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib import import_module
from types import ModuleType

import pytest

from overlayd_backends.udp.engine import COUNTERS
from overlayd_backends.udp.table import EMPTY
from support.datapaths import table_of

TIMEOUT = 10
"""Seconds for a thread to end."""


@pytest.fixture
def datapath() -> ModuleType:
    try:
        return import_module("overlayd_backends.udp._datapath")
    except ImportError as error:
        pytest.skip(f"needs the C datapath, which is built by `pip install` where a compiler is: {error}")


class Ends:
    """The ends that a loop is attached to, with a socket pair in the place of the TUN."""

    def __init__(self) -> None:
        self.pods, self.tun = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.tun.setblocking(False)
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.stop = os.eventfd(0)

    def close(self) -> None:
        for one in (self.pods, self.tun, self.udp):
            one.close()
        os.close(self.stop)


@pytest.fixture
def ends() -> Iterator[Ends]:
    with closing(Ends()) as ends:
        yield ends


class RunningBinding:
    """A direction of a loop in a thread of its own."""

    def __init__(self, run: Callable[[], None]) -> None:
        self.error: OSError | None = None
        self._run = run
        self._thread = threading.Thread(target=self._catch, daemon=True)
        self._thread.start()

    def _catch(self) -> None:
        try:
            self._run()
        except OSError as error:
            self.error = error

    def wait_end(self) -> OSError | None:
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()
        return self.error


def test_the_extension_is_of_the_stable_abi(datapath: ModuleType) -> None:
    assert str(datapath.__file__).endswith(".abi3.so")


def test_counters_have_the_names_that_the_python_engine_has(datapath: ModuleType) -> None:
    assert datapath.Engine(True, True, True, True).counters() == dict.fromkeys(COUNTERS, 0)


def test_arguments_of_other_types_are_refused_with_nothing_done(datapath: ModuleType) -> None:
    engine = datapath.Engine(True, True, True, True)
    wrongs: list[Callable[[], object]] = [
        lambda: engine.replace("table"),
        lambda: engine.outgoing([b"", None], 0.0),
        lambda: engine.outgoing(7, 0.0),
        lambda: engine.incoming([(b"\0\0\0\0", 0, b""), b"datagram"]),
        lambda: engine.incoming([(b"\0\0\0\0", "0", b"")]),
        lambda: engine.refused(b"\0\0\0\0", 1, 0, "payload", 0, 0.0),
    ]
    for wrong in wrongs:
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(ValueError, match="4 bytes, this one 3"):
        engine.incoming([(b"\0\0\0", 0, b"")])
    with pytest.raises(ValueError, match="4 bytes, this one 5"):
        engine.refused(b"12345", 1, 0, b"", 0, 0.0)
    with pytest.raises(ValueError, match="segment size 65536"):
        engine.refused(b"1234", 1, 0x10000, b"", 0, 0.0)
    assert not any(engine.counters().values())


def test_a_malformed_table_is_refused_in_words(datapath: ModuleType, ends: Ends) -> None:
    engine = datapath.Engine(True, True, True, True)
    loop = datapath.Loop(engine, ends.tun.fileno(), ends.udp.fileno(), ends.stop)
    for replace in (engine.replace, loop.replace):
        with pytest.raises(ValueError, match="of 0 own prefixes and 0 entries has 8 bytes, this one 9"):
            replace(EMPTY + b"\0")


def test_both_directions_end_when_told_to_and_may_begin_again(datapath: ModuleType, ends: Ends) -> None:
    engine = datapath.Engine(True, True, True, True)
    loop = datapath.Loop(engine, ends.tun.fileno(), ends.udp.fileno(), ends.stop)
    for _ in range(2):
        directions = [RunningBinding(loop.run_tx), RunningBinding(loop.run_rx)]
        os.eventfd_write(ends.stop, 1)
        assert [direction.wait_end() for direction in directions] == [None, None]
        assert os.eventfd_read(ends.stop) == 1, "the loop has read the caller's eventfd"


def test_a_dead_descriptor_ends_its_direction_with_its_error(datapath: ModuleType, ends: Ends) -> None:
    loop = datapath.Loop(datapath.Engine(True, True, True, True), 1 << 20, 1 << 20, ends.stop)
    for run in (loop.run_tx, loop.run_rx):
        error = RunningBinding(run).wait_end()
        assert error is not None
        assert error.errno == errno.EBADF


def wait_until(holds: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(TIMEOUT * 100):
        if holds():
            return
        pause.wait(0.01)
    pytest.fail("never came true")


def test_one_direction_is_run_by_one_thread_and_an_idle_one_takes_its_table_up(
    datapath: ModuleType, ends: Ends
) -> None:
    engine = datapath.Engine(False, True, True, True)
    loop = datapath.Loop(engine, ends.tun.fileno(), ends.udp.fileno(), ends.stop)
    running = [RunningBinding(loop.run_tx), RunningBinding(loop.run_rx)]
    loop.replace(table_of(1).packed())
    wait_until(lambda: loop.counters()["tables"] == 1)
    ends.udp.sendto(b"from a stranger", ends.udp.getsockname())
    wait_until(lambda: loop.counters()["drop_unknown_sender"] == 1)
    for run in (loop.run_tx, loop.run_rx):
        error = RunningBinding(run).wait_end()
        assert error is not None
        assert error.errno == errno.EBUSY
    with pytest.raises(RuntimeError, match="another thread runs this direction"):
        engine.outgoing([], 0.0)
    with pytest.raises(RuntimeError, match="another thread runs this direction"):
        engine.incoming([])
    ends.pods.send(b"short")
    wait_until(lambda: loop.counters()["drop_truncated"] == 1)
    os.eventfd_write(ends.stop, 1)
    assert [direction.wait_end() for direction in running] == [None, None]


def test_loops_come_and_go_without_a_descriptor_left(datapath: ModuleType, ends: Ends) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(100):
        datapath.Loop(datapath.Engine(True, True, True, True), ends.tun.fileno(), ends.udp.fileno(), ends.stop)
    assert len(os.listdir("/proc/self/fd")) == before
