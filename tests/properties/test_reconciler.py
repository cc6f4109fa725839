"""The reconciler over the fake kernel: it reaches the desired state after any change, and harms no one."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from overlayd.core.decide import Decision, Target
from overlayd.core.kernel.driver import ALL, Failure, Keys, Operation, Scope, Verb
from overlayd.core.kernel.items import Address, FdbEntry, KernelState, Link, Neighbour, Route
from overlayd.core.network.addresses import Subnet
from overlayd.core.network.desired import DesiredState
from overlayd.core.report import Report
from overlayd.node.reconciler import Reconciler
from overlayd.testing.kernel import FakeKernel, ForeignLink, ForeignRoute
from support import overlay

PEERS = range(2, 6)
PATIENCE = 300.0
"""Seconds of virtual time: longer than the longest pause between two retries, several times over."""


@dataclass
class WatchedKernel(FakeKernel):
    """Refuses what `refuse` says, and checks with each route that its VTEP is there."""

    refuse: set[type] = field(default_factory=set)

    async def apply(self, operations: Sequence[Operation]) -> tuple[Failure | None, ...]:
        for operation in operations:
            if type(operation.item) in self.refuse and operation.verb is not Verb.REMOVE:
                self.fail_next(lambda other, refused=operation: other is refused, errno.ENOMEM)  # type: ignore[misc]
        outcomes = await super().apply(operations)
        for operation, failure in zip(operations, outcomes, strict=True):
            route = operation.item
            if isinstance(route, Route) and operation.verb is not Verb.REMOVE and failure is None and route.onlink:
                assert route.gateway is not None
                neighbour = self.neighbours[route.link, route.gateway]
                assert (route.link, neighbour.mac) in self.fdb
        return outcomes


@dataclass
class ReconcilerWorld:
    kernel: WatchedKernel
    peers: frozenset[int] = frozenset(PEERS)
    reports: list[Report] = field(default_factory=list)

    def desired(self) -> DesiredState:
        base = overlay.node()
        peers = {_subnet(n): KernelState.of(overlay.peer(n)) for n in self.peers}
        return DesiredState(base, peers)

    async def decide(self) -> Decision:
        return Decision(target=Target(self.desired(), Scope(frozenset({"eth0"})), sweep=True))

    async def publish(self, report: Report) -> None:
        self.reports.append(report)


def _subnet(number: int) -> Subnet:
    return Subnet((overlay.subnet(number),))


def _desired(report: Report) -> DesiredState:
    assert report.decision.target is not None
    return report.decision.target.desired


Disturbance = Callable[[ReconcilerWorld, Reconciler], None]


def _on_device(act: Callable[[FakeKernel], None]) -> Disturbance:
    def disturb(world: ReconcilerWorld, reconciler: Reconciler) -> None:
        if overlay.DEVICE in world.kernel.links:
            act(world.kernel)

    return disturb


def _peers(peers: frozenset[int]) -> Disturbance:
    def disturb(world: ReconcilerWorld, reconciler: Reconciler) -> None:
        world.peers = peers
        reconciler.wake_up.ring()

    return disturb


def _refuse(kinds: set[type]) -> Disturbance:
    return lambda world, reconciler: setattr(world.kernel, "refuse", kinds)


STRANGER = ForeignRoute(IPv4Network("10.244.3.0/24"), "eth0", IPv4Address("10.99.0.77"))

disturbances: st.SearchStrategy[Disturbance] = st.one_of(
    st.just(_on_device(lambda kernel: kernel.delete_link(overlay.DEVICE))),
    st.just(_on_device(lambda kernel: kernel.set_link(overlay.DEVICE, up=False))),
    st.just(_on_device(lambda kernel: kernel.set_link(overlay.DEVICE, mac=overlay.mac(99)))),
    st.just(_on_device(lambda kernel: kernel.set_link(overlay.DEVICE, mtu=1300))),
    st.just(
        _on_device(lambda kernel: kernel.put(FdbEntry(overlay.DEVICE, overlay.mac(2), IPv4Address("10.99.0.66"))))
    ),
    st.just(
        _on_device(
            lambda kernel: kernel.put(Neighbour(overlay.DEVICE, IPv4Address("10.244.2.0"), overlay.mac(66)))
        )
    ),
    st.just(_on_device(lambda kernel: kernel.put(Address(overlay.DEVICE, IPv4Address("10.244.66.0"), 32)))),
    st.just(_on_device(lambda kernel: kernel.add_route(STRANGER))),
    st.sampled_from([item for n in PEERS for item in overlay.peer(n)]).map(
        lambda item: _on_device(lambda kernel: kernel.delete(item))
    ),
    st.frozensets(st.sampled_from(PEERS)).map(_peers),
    st.sets(st.sampled_from([Link, FdbEntry, Neighbour, Route]), max_size=2).map(_refuse),
)


def _foreign(kernel: FakeKernel) -> tuple[object, ...]:
    routes = [route for routes in kernel.routes.values() for route in routes if route.protocol != 111]
    decoys = [route for routes in kernel.routes.values() for route in routes if route.link == "dummy0"]
    return (
        {name: link for name, link in kernel.links.items() if name != overlay.DEVICE},
        sorted(map(str, routes)),
        decoys,
    )


def _kernel() -> WatchedKernel:
    kernel = WatchedKernel()
    kernel.add_link(ForeignLink("eth0"))
    kernel.add_link(ForeignLink("dummy0"))
    decoy = ForeignRoute(IPv4Network("10.244.9.0/24"), "dummy0", IPv4Address("192.0.2.1"), protocol=111)
    kernel.add_route(decoy)
    kernel.add_route(ForeignRoute(IPv4Network("0.0.0.0/0"), "eth0", IPv4Address("10.99.0.254")))
    return kernel


@given(st.lists(st.tuples(disturbances, st.sampled_from([0.5, 5.0, 40.0])), max_size=8))
@settings(max_examples=200)
def test_the_kernel_ends_at_the_wish(events: list[tuple[Disturbance, float]]) -> None:
    async def main() -> None:
        world = ReconcilerWorld(_kernel())
        reconciler = Reconciler(world.kernel, world.decide, world.publish, trio.current_time)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reconciler.run)
            await trio.sleep(1)
            for disturb, pause in events:
                disturb(world, reconciler)
                foreign = _foreign(world.kernel)
                await trio.sleep(pause)
                assert _foreign(world.kernel) == foreign
            world.kernel.refuse = set()
            await trio.sleep(PATIENCE)
            actual = await world.kernel.observe(Scope(frozenset({"eth0"})))
            assert str(actual) == str(world.desired().kernel)
            assert not world.reports[-1].retries.failed_operations
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_one_refused_entry_delays_no_other(autojump_clock: trio.testing.MockClock) -> None:
    world = ReconcilerWorld(_kernel())
    bad = overlay.neighbour(3)
    world.kernel.fail_next(lambda operation: operation.item == bad, errno.ENOMEM, "out of memory", times=1_000)
    reconciler = Reconciler(world.kernel, world.decide, world.publish, trio.current_time)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reconciler.run)
        await trio.sleep(0.5)
        report = world.reports[-1]
        desired = _desired(report)
        reached = {subnet for subnet, wanted in desired.peers.items() if report.is_reached(wanted)}
        assert reached == desired.peers.keys() - {_subnet(3)}
        assert report.retries.failed_operations[bad.key].failure.reason == "out of memory"
        assert overlay.route(3).key in report.missing, "its route would lead nowhere"
        tries = sum(operation.item == bad for operation, _ in world.kernel.applied)
        await trio.sleep(600)
        more = sum(operation.item == bad for operation, _ in world.kernel.applied) - tries
        assert 5 <= more <= 30, "it is retried with backoff"
        nursery.cancel_scope.cancel()


async def test_before_the_first_snapshot_nothing_is_swept(autojump_clock: trio.testing.MockClock) -> None:
    kernel = _kernel()
    for item in overlay.node(peers=PEERS):
        await kernel.apply(overlay.adding([item]))
    in_sync = False

    async def decide() -> Decision:
        return Decision(target=Target(DesiredState(overlay.node()), Scope(), sweep=in_sync))

    async def publish(report: Report) -> None:
        pass

    reconciler = Reconciler(kernel, decide, publish, trio.current_time)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reconciler.run)
        await trio.sleep(100)
        assert (await kernel.observe(Scope())) == overlay.node(peers=PEERS)
        in_sync = True
        await trio.sleep(100)
        assert (await kernel.observe(Scope())) == overlay.node()
        nursery.cancel_scope.cancel()


async def test_a_kernel_that_cannot_be_asked_is_reported_and_asked_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Silent(WatchedKernel):
        silent = True

        async def observe(self, scope: Scope, keys: Keys = ALL) -> KernelState:
            if self.silent:
                raise OSError(errno.ENOBUFS, "No buffer space available")
            return await super().observe(scope, keys)

    kernel = Silent()
    kernel.add_link(ForeignLink("eth0"))
    world = ReconcilerWorld(kernel)
    reconciler = Reconciler(kernel, world.decide, world.publish, trio.current_time)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reconciler.run)
        await trio.sleep(1)
        assert "No buffer space" in world.reports[-1].trouble
        kernel.silent = False
        await trio.sleep(60)
        assert world.reports[-1].trouble == ""
        assert world.reports[-1].is_reached(world.desired().kernel)
        nursery.cancel_scope.cancel()


async def test_what_cannot_be_tried_yet_is_waited_for_in_peace(autojump_clock: trio.testing.MockClock) -> None:
    """Routes that failed once, and then can't be tried as their device is refused: no reason to spin."""
    world = ReconcilerWorld(_kernel())
    world.kernel.refuse = {Route}
    reconciler = Reconciler(world.kernel, world.decide, world.publish, trio.current_time)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reconciler.run)
        await trio.sleep(0.5)
        world.kernel.refuse = {Link}
        world.kernel.delete_link(overlay.DEVICE)
        await trio.sleep(5)
        before = len(world.reports)
        await trio.sleep(60)
        assert len(world.reports) - before < 20
        nursery.cancel_scope.cancel()


async def test_a_route_waits_for_the_fdb_entry_of_a_neighbour_that_is_there(
    autojump_clock: trio.testing.MockClock,
) -> None:
    world = ReconcilerWorld(_kernel())
    reconciler = Reconciler(world.kernel, world.decide, world.publish, trio.current_time)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reconciler.run)
        await trio.sleep(1)
        world.kernel.refuse = {FdbEntry}
        world.kernel.delete(overlay.fdb_entry(3))
        world.kernel.delete(overlay.route(3))
        await trio.sleep(5)
        assert overlay.subnet(3) not in world.kernel.routes
        world.kernel.refuse = set()
        await trio.sleep(PATIENCE)
        assert await world.kernel.observe(Scope(frozenset({"eth0"}))) == world.desired().kernel
        nursery.cancel_scope.cancel()
