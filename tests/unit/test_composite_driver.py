"""One driver in front of several: each item goes to whom it belongs, and all of them are heard."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from dataclasses import dataclass
from ipaddress import IPv4Address

import pytest
import trio

from overlayd.core.decide import Decision, Target
from overlayd.core.kernel.datapath import Datapath, Encap
from overlayd.core.kernel.driver import Scope
from overlayd.core.kernel.items import Item, KernelState, Route
from overlayd.core.network.desired import DesiredState
from overlayd.core.report import Report
from overlayd.core.status.builder import with_datapath
from overlayd.core.status.status import Status
from overlayd.host.composite_driver import CompositeDriver
from overlayd.node.reconciler import Reconciler
from overlayd.testing.changes import open_changes
from overlayd.testing.kernel import FakeKernel, ForeignLink
from support.loops import FakeAttachment, open_fake_datapath
from support.overlay import TUN, adding, subnet, tun_node

PATIENCE = 10.0
DATAPATH = Datapath(TUN, IPv4Address("10.99.0.1"), 8285, (subnet(1),))
ENCAP = Encap(TUN, subnet(2), IPv4Address("10.99.0.2"), 8285)
WISH = tun_node() | KernelState.of([DATAPATH, ENCAP])


@dataclass
class CompositeNode:
    joined: CompositeDriver
    kernel: FakeKernel
    attachment: FakeAttachment

    async def state(self) -> set[Item]:
        return set((await self.joined.observe(Scope())).items)


@pytest.fixture
async def node() -> AsyncIterator[CompositeNode]:
    kernel = FakeKernel(beside=frozenset())
    kernel.add_link(ForeignLink("eth0"))
    async with open_fake_datapath() as (datapath, attachment):
        yield CompositeNode(CompositeDriver([kernel, datapath]), kernel, attachment)


async def test_each_item_goes_to_whom_it_belongs(node: CompositeNode) -> None:
    assert await node.joined.apply(adding(WISH)) == (None,) * len(WISH)
    assert await node.state() == WISH.items
    assert node.attachment.last.datapath == DATAPATH
    assert not node.kernel.find(Datapath)


async def test_the_items_of_another_device_are_for_the_kernel_to_refuse(node: CompositeNode) -> None:
    elsewhere = Datapath("ovl.other", IPv4Address("10.99.0.1"), 8285)
    (refused,) = await node.joined.apply(adding([elsewhere]))
    assert refused is not None
    assert not node.attachment.loops


async def test_outcomes_stand_where_their_operations_do(node: CompositeNode) -> None:
    await node.joined.apply(adding(WISH))
    bad = Encap(TUN, subnet(1), IPv4Address("10.99.0.3"), 8285)
    route = next(item for item in tun_node() if isinstance(item, Route))
    node.kernel.fail_next(lambda operation: operation.item == route, reason="no")
    outcomes = await node.joined.apply(adding([bad, route, ENCAP]))
    assert [failure and failure.errno for failure in outcomes] == [errno.EINVAL, errno.ENOBUFS, None]


async def test_a_datapath_without_its_device_is_not_seen(node: CompositeNode) -> None:
    await node.joined.apply(adding(WISH))
    node.kernel.delete_link(TUN)
    assert not {item for item in await node.state() if isinstance(item, Datapath | Encap)}


async def test_a_change_on_either_side_is_hinted_at(node: CompositeNode) -> None:
    await node.joined.apply(adding(WISH))
    async with open_changes(node.joined) as hints:
        with trio.move_on_after(0.05) as silence:
            await hints.wait()
        assert silence.cancelled_caught
        for disturb in (node.kernel.hint, lambda: node.attachment.last.strike(None)):
            disturb()
            with trio.fail_after(PATIENCE):
                await hints.wait()


async def test_the_reconciler_brings_back_a_datapath_that_died_with_all_its_entries(node: CompositeNode) -> None:
    reports: list[Report] = []

    async def decide() -> Decision:
        return Decision(target=Target(DesiredState(WISH), Scope(), sweep=True))

    async def publish(report: Report) -> None:
        reports.append(report)

    def is_reached(loops: int) -> bool:
        return len(node.attachment.loops) == loops and bool(reports) and reports[-1].is_reached(WISH)

    async def wait_for(loops: int) -> None:
        with trio.fail_after(PATIENCE):
            while not is_reached(loops):  # noqa: ASYNC110
                await trio.sleep(0.01)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(Reconciler(node.joined, decide, publish, trio.current_time).run)
        await wait_for(1)
        node.attachment.last.strike(OSError(5, "no"))
        await wait_for(2)
        first, second = node.attachment.loops
        with trio.fail_after(PATIENCE):  # the report may be one of before
            while second.tables[-1] != first.tables[-1]:  # noqa: ASYNC110
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


async def test_status_has_what_the_datapath_says(node: CompositeNode) -> None:
    status = Status("0.1.0", 1.0, 30.0, "node1", "ab", 0.0, "held", in_sync=True, revision=1)
    assert with_datapath(status, node.joined.report()) is status
    await node.joined.apply(adding(WISH))
    node.attachment.last.counts = {"tx_packets": 3, "drop_no_route": 2}
    told = with_datapath(status, node.joined.report()).datapath
    assert told is not None
    assert (told.implementation, told.reason, told.offloads) == ("python", "for a test", ("checksum",))
    assert (told.counters, told.drops) == ({"tx_packets": 3}, {"no_route": 2})
