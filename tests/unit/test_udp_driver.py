"""The life of a datapath: it starts, dies, is started again, stops; its threads always end before their files."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

import pytest
import trio
import trio.testing

from overlayd.cli import main
from overlayd.core.kernel.datapath import Datapath, DatapathReport, DatapathUnavailableError, Encap
from overlayd.core.kernel.driver import Driver, Failure, Operation, Scope, Verb
from overlayd.core.kernel.items import Item
from overlayd.testing.changes import open_changes
from overlayd_backends.udp import implementation
from overlayd_backends.udp.implementation import choose_implementation
from overlayd_backends.udp.restart_backoff import RestartBackoff
from overlayd_backends.udp.table import Table, TableEntry
from support.loops import FakeAttachment, open_fake_datapath
from support.overlay import TUN, adding, removing, subnet

DATAPATH = Datapath(TUN, IPv4Address("10.99.0.1"), 8285, (subnet(1),))
ENCAP = Encap(TUN, subnet(2), IPv4Address("10.99.0.2"), 8285)
PATIENCE = 10.0


@dataclass
class DriverNode:
    driver: Driver
    attachment: FakeAttachment

    async def put(self, *items: Item) -> tuple[Failure | None, ...]:
        return await self.driver.apply(adding(items))

    async def runs(self) -> bool:
        return bool((await self.driver.observe(Scope())).items)

    def report(self) -> DatapathReport:
        report = self.driver.report()
        assert report is not None
        return report

    async def die(self, death: Exception | None) -> None:
        async with open_changes(self.driver) as hints:
            self.attachment.last.strike(death)
            with trio.fail_after(PATIENCE):
                await hints.wait()


@pytest.fixture
async def node() -> AsyncIterator[DriverNode]:
    async with open_fake_datapath() as (driver, attachment):
        yield DriverNode(driver, attachment)


async def test_the_loop_gets_the_table_whole_with_each_change(node: DriverNode) -> None:
    assert await node.put(DATAPATH) == (None,)
    assert await node.put(ENCAP) == (None,)
    own = (IPv4Network("10.244.1.0/24"),)
    full = Table(own, (TableEntry(IPv4Network("10.244.2.0/24"), IPv4Address("10.99.0.2"), 8285),))
    assert node.attachment.last.tables == [Table(own).packed(), full.packed()]
    assert await node.driver.apply(removing([ENCAP])) == (None,)
    assert node.attachment.last.tables[-1] == Table(own).packed()


async def test_many_entries_are_one_table(node: DriverNode) -> None:
    await node.put(DATAPATH)
    entries = [Encap(TUN, subnet(n), IPv4Address("10.99.0.2"), 8285) for n in range(2, 200)]
    assert not any(await node.put(*entries))
    assert len(node.attachment.last.tables) == 2


async def test_an_entry_that_overlaps_is_refused_alone(node: DriverNode) -> None:
    await node.put(DATAPATH)
    inside_own = Encap(TUN, IPv4Network("10.244.1.128/25"), IPv4Address("10.99.0.3"), 8285)
    [good, bad] = await node.put(ENCAP, inside_own)
    assert good is None
    assert bad is not None
    assert "overlap" in bad.reason
    assert (await node.driver.observe(Scope())).items == {DATAPATH, ENCAP}


async def test_an_entry_without_a_datapath_is_refused_with_its_device(node: DriverNode) -> None:
    [refused] = await node.put(ENCAP)
    assert refused is not None
    assert "no datapath runs on ovl.udp" in refused.reason


async def test_an_own_prefix_over_an_entry_is_refused_and_the_old_table_stays(node: DriverNode) -> None:
    await node.put(DATAPATH)
    await node.put(ENCAP)
    greedy = Datapath(TUN, DATAPATH.local, 8285, (IPv4Network("10.244.0.0/22"),))
    [refused] = await node.driver.apply([Operation(Verb.CHANGE, greedy, was=DATAPATH)])
    assert refused is not None
    assert (await node.driver.observe(Scope())).items == {DATAPATH, ENCAP}


async def test_a_new_port_is_a_new_life_and_a_new_own_prefix_is_not(node: DriverNode) -> None:
    await node.put(DATAPATH)
    own = Datapath(TUN, DATAPATH.local, 8285, (subnet(7),))
    port = Datapath(TUN, DATAPATH.local, 9000, (subnet(7),))
    await node.driver.apply([Operation(Verb.CHANGE, own, was=DATAPATH)])
    assert len(node.attachment.loops) == 1
    await node.driver.apply([Operation(Verb.CHANGE, port, was=own)])
    first, second = node.attachment.loops
    assert (first.closed, second.closed, second.datapath) == (True, False, port)


async def test_stopping_ends_the_threads_before_the_files(node: DriverNode) -> None:
    await node.put(DATAPATH)
    await node.driver.apply(removing([DATAPATH]))
    assert node.attachment.last.closed  # FakeLoop.close saw to the order
    assert node.driver.report() is None


async def test_the_end_of_the_daemon_is_no_death(caplog: pytest.LogCaptureFixture) -> None:
    async with open_fake_datapath() as (driver, attachment):
        await driver.apply(adding([DATAPATH]))
    assert attachment.last.closed
    assert caplog.records == []


async def test_no_file_and_no_thread_is_left(node: DriverNode) -> None:
    async def cycle() -> None:
        await node.put(DATAPATH)
        await node.driver.apply(removing([DATAPATH]))

    await cycle()
    before = len(os.listdir("/proc/self/fd")), trio.lowlevel.current_statistics().tasks_living
    for _ in range(5):
        await cycle()
    assert (len(os.listdir("/proc/self/fd")), trio.lowlevel.current_statistics().tasks_living) == before


@pytest.mark.parametrize(
    ("death", "said"),
    [
        (OSError(errno.EBADFD, "File descriptor in bad state"), "File descriptor in bad state"),
        (None, "its tx thread ended by itself"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError"),
    ],
    ids=["dead descriptor", "silent end", "bug"],
)
async def test_a_dead_loop_is_noticed_named_and_started_again(
    node: DriverNode, death: Exception | None, said: str
) -> None:
    await node.put(DATAPATH)
    await node.put(ENCAP)
    await node.die(death)
    assert not await node.runs()
    assert node.attachment.last.closed
    assert said in node.report().trouble
    assert node.report().offloads == ()
    assert await node.put(DATAPATH) == (None,)
    assert await node.put(ENCAP) == (None,)
    assert len(node.attachment.loops) == 2
    assert said in node.report().trouble, "it stays named"


def test_one_that_dies_all_the_time_is_given_a_pause() -> None:
    clock = trio.testing.MockClock()

    async def live() -> None:
        async with open_fake_datapath() as (driver, attachment):
            node = DriverNode(driver, attachment)
            for pause in (0, 0, 1, 2):
                if pause:
                    [refused] = await node.put(DATAPATH)
                    assert refused is not None
                    assert refused.reason == "it stopped ([Errno 5] no) and is to be started again soon"
                    clock.jump(pause)
                assert await node.put(DATAPATH) == (None,)
                await node.die(OSError(errno.EIO, "no"))
            clock.jump(10)
            await node.put(DATAPATH)
            clock.jump(60)  # a long life is forgiven
            await node.die(OSError(errno.EIO, "no"))
            assert await node.put(DATAPATH) == (None,)

    trio.run(live, clock=clock)


def test_pauses_end_at_a_minute() -> None:
    lives = RestartBackoff()
    pauses = []
    for _ in range(10):
        lives = lives.after(100.0, 101.0, "x")
        pauses.append(lives.next_at - 101.0)
    assert pauses == [0, 1, 2, 4, 8, 16, 32, 60, 60, 60]


async def test_what_was_counted_stays_counted_over_lives(node: DriverNode) -> None:
    await node.put(DATAPATH)
    node.attachment.last.counts = {"tx_packets": 5, "drop_no_route": 2}
    assert (node.report().counters, node.report().drops) == ({"tx_packets": 5}, {"no_route": 2})
    await node.die(None)
    assert node.report().counters["tx_packets"] == 5
    await node.put(DATAPATH)
    node.attachment.last.counts = {"tx_packets": 1, "drop_no_route": 1}
    assert (node.report().counters["tx_packets"], node.report().drops["no_route"]) == (6, 3)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EADDRINUSE, "cannot use"), "another socket has UDP port 8285; this shows which: ss -ulnp"),
        (OSError(errno.EBUSY, "cannot attach"), "another process is attached to ovl.udp"),
        (OSError(errno.ENODEV, "cannot attach to TUN device ovl.udp: No such device"), "No such device"),
    ],
)
async def test_what_cannot_be_attached_is_refused_with_the_reason(
    node: DriverNode, error: OSError, said: str
) -> None:
    node.attachment.refuse = error
    [refused] = await node.put(DATAPATH)
    assert refused is not None
    assert refused.errno == error.errno
    assert said in refused.reason
    assert not await node.runs()


async def test_entries_from_before_a_start_that_failed_are_not_served_after_it(node: DriverNode) -> None:
    await node.put(DATAPATH)
    await node.put(ENCAP)
    node.attachment.refuse = OSError(errno.EADDRINUSE, "cannot use")
    moved = Datapath(TUN, DATAPATH.local, 9000, DATAPATH.own)
    [refused] = await node.driver.apply([Operation(Verb.CHANGE, moved, was=DATAPATH)])
    assert refused is not None
    node.attachment.refuse = None
    assert await node.put(moved) == (None,)
    assert (await node.driver.observe(Scope())).items == {moved}
    assert node.attachment.last.tables == [Table((IPv4Network("10.244.1.0/24"),)).packed()]


def test_an_implementation_is_chosen_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_implementation("python").reason == "it was asked for"
    monkeypatch.setattr(implementation, "_EXTENSION", "overlayd_backends.udp.absent")
    chosen = choose_implementation(None)
    assert chosen.name == "python"
    assert "the C datapath is missing" in chosen.reason
    with pytest.raises(DatapathUnavailableError, match="install overlayd again with a C compiler"):
        choose_implementation("c")


def test_a_daemon_that_is_to_use_what_is_not_there_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(implementation, "_EXTENSION", "overlayd_backends.udp.absent")
    assert main(["run", "--datapath", "c"]) == 2
    said = capsys.readouterr().err
    assert "the C datapath is missing" in said
    assert "--datapath python" in said
    assert "Traceback" not in said
