"""The checks that are shipped find what they are for: each fault here is one that an author might make."""

from __future__ import annotations

import errno
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import count
from typing import ClassVar, cast

import pytest
import trio.testing

from overlayd.core.kernel.driver import ALL, Driver, Failure, Keys, OnChange, Operation, Scope, Verb
from overlayd.core.kernel.items import FdbEntry, Item, KernelState, Key, Link, OnLink
from overlayd.core.leases.lease import Lease
from overlayd.core.network.backend import Backend
from overlayd.core.network.view import NetworkView
from overlayd.host.netlink.driver import VXLAN_DEVICES
from overlayd.testing import backend_checks, contracts
from overlayd.testing.backend_checks import BackendCase, BackendCheck
from overlayd.testing.contracts import DriverCase, DriverCheck
from overlayd.testing.kernel import FakeKernel, ForeignLink
from overlayd_backends.vxlan import VxlanBackend
from support.overlay import link

SCOPE = Scope(frozenset({"eth0"}))
GOOD = BackendCase(VxlanBackend(), FakeKernel().kinds, (VXLAN_DEVICES,))


class Forgetful(FakeKernel):
    """Reports success and leaves out the last operation of many."""

    async def apply(self, operations: Sequence[Operation]) -> tuple[Failure | None, ...]:
        done = await super().apply(operations[:-1] or operations)
        return (*done, None)[: len(operations)]


class Keeping(FakeKernel):
    """Removes no FDB entry."""

    def _remove(self, item: Item) -> None:
        if not isinstance(item, FdbEntry):
            super()._remove(item)


class Literal(FakeKernel):
    """Refuses to add what is there."""

    def _put(self, operation: Operation) -> Failure | None:
        there = KernelState.of(self.netlink_items(SCOPE)).by_key
        if operation.verb is Verb.ADD and operation.item.key in there:
            return Failure(errno.EEXIST, "it is there")
        return super()._put(operation)


class Hasty(FakeKernel):
    """Gives up at the first refusal."""

    async def apply(self, operations: Sequence[Operation]) -> tuple[Failure | None, ...]:
        outcomes: list[Failure | None] = []
        for operation in operations:
            failed = bool(outcomes) and outcomes[-1] is not None
            outcomes.append(outcomes[-1] if failed else (await super().apply([operation]))[0])
        return tuple(outcomes)


class Narrow(FakeKernel):
    """Does not know that a link's key names what stands on it."""

    async def observe(self, scope: Scope, keys: Keys = ALL) -> KernelState:
        state = await super().observe(scope)
        return state if keys is ALL else KernelState.of(item for item in state.items if item.key in keys)


class Silent(FakeKernel):
    """Tells nobody of anything."""

    @asynccontextmanager
    async def watch(self, on_change: OnChange) -> AsyncGenerator[None, None]:
        yield


class Cluttered(FakeKernel):
    """Takes for ours what was never added."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.add_link(ForeignLink("eth0"))
        self.add_link(link())


class Mortal(FakeKernel):
    """Loses everything when it is closed."""


FAULTS: dict[type[FakeKernel], DriverCheck] = {
    Forgetful: contracts.check_a_plan_is_reached_in_one_round,
    Keeping: contracts.check_each_state_is_reached_from_each_other,
    Literal: contracts.check_adding_and_removing_again_succeed,
    Hasty: contracts.check_a_refusal_keeps_nothing_else_from_being_done,
    Narrow: contracts.check_named_items_are_observed,
    Silent: contracts.check_changes_are_told,
    Cluttered: contracts.check_nothing_is_ours_before_it_is_added,
    Mortal: contracts.check_the_next_life_knows_what_is_ours,
}


@pytest.mark.parametrize(("faulty", "check"), FAULTS.items(), ids=lambda each: each.__name__)
async def test_a_faulty_driver_is_found(
    faulty: type[FakeKernel], check: DriverCheck, autojump_clock: trio.testing.MockClock
) -> None:
    def make() -> FakeKernel:
        made = faulty()
        made.add_link(ForeignLink("eth0"))
        return made

    kernel = make()

    @asynccontextmanager
    async def open_kernel() -> AsyncIterator[Driver]:
        yield make() if faulty is Mortal else kernel

    async def disturb(driver: Driver) -> frozenset[Key]:
        gone = next(item for item in await driver.observe(SCOPE) if isinstance(item, FdbEntry))
        kernel.delete(gone)
        return frozenset({gone.key})

    with pytest.raises(AssertionError):
        await check(DriverCase(open_kernel, [GOOD.state((2, 3)), GOOD.state()], SCOPE, disturb))


def test_every_check_of_drivers_finds_something() -> None:
    assert {*FAULTS.values(), contracts.check_items_say_what_planning_needs} == set(contracts.DRIVER_CHECKS)


@dataclass(frozen=True)
class Nameless(OnLink):
    """Has no text of its own, and a key of another noun."""

    noun: ClassVar[str] = "nameless"
    rank: ClassVar[int] = 70

    link: str = "ovl.1"

    @property
    def key(self) -> Key:
        return ("other", self.link)


@dataclass(frozen=True)
class TooLow(Nameless):
    """Ranks below its link."""

    noun: ClassVar[str] = "other"
    rank: ClassVar[int] = 5

    def __str__(self) -> str:
        return "too low"


@pytest.mark.parametrize("item", [Nameless(), TooLow()])
async def test_an_item_that_can_not_be_planned_is_found(item: Item) -> None:
    @asynccontextmanager
    async def open_kernel() -> AsyncIterator[Driver]:
        yield FakeKernel(beside=frozenset({Nameless, TooLow}))

    case = DriverCase(open_kernel, [KernelState.of([link(), item])])
    with pytest.raises(AssertionError):
        await contracts.check_items_say_what_planning_needs(case)


class Credulous(VxlanBackend):
    """Takes every peer for one of its own kind."""

    def peer(self, view: NetworkView, lease: Lease) -> list[Item]:
        mine = replace(lease.attributes, backend=self.kind)
        return list(super().peer(view, replace(lease, attributes=mine)))


class Greedy(VxlanBackend):
    """Gives pods more than the device has."""

    mtu_of_the_device: ClassVar[Callable[[], int]] = lambda: 100

    def base(self, view: NetworkView) -> Iterator[Item]:
        for item in super().base(view):
            yield replace(item, mtu=type(self).mtu_of_the_device()) if isinstance(item, Link) else item


class Fickle(Greedy):
    """Says another thing each time."""

    mtu_of_the_device: ClassVar[Callable[[], int]] = count(1000).__next__


class Picky(VxlanBackend):
    """Needs nothing for its peers."""

    def peer(self, view: NetworkView, lease: Lease) -> list[Item]:
        return []


class Demanding(VxlanBackend):
    """Can't be without options."""

    @classmethod
    def parse(cls, options: Mapping[str, object]) -> VxlanBackend:
        raise AssertionError("it needs an option")


def having(backend: object) -> BackendCase:
    return replace(GOOD, backend=cast("Backend", backend))


BACKEND_FAULTS: dict[Callable[[], BackendCase], BackendCheck] = {
    lambda: having(Credulous()): backend_checks.check_a_peer_that_can_not_be_served_is_refused,
    lambda: having(Greedy()): backend_checks.check_pods_get_the_mtu_that_the_device_has,
    lambda: having(Fickle()): backend_checks.check_it_is_a_function_of_its_arguments,
    lambda: having(Picky()): backend_checks.check_every_peer_is_served,
    lambda: having(Demanding()): backend_checks.check_it_can_be_parsed_without_options,
    lambda: replace(GOOD, devices=()): backend_checks.check_a_driver_has_each_item_and_each_device,
}


@pytest.mark.parametrize(("make", "check"), BACKEND_FAULTS.items(), ids=lambda each: each.__name__)
def test_a_faulty_backend_is_found(make: Callable[[], BackendCase], check: BackendCheck) -> None:
    with pytest.raises(AssertionError):
        check(make())


def test_every_check_of_backends_finds_something() -> None:
    assert set(BACKEND_FAULTS.values()) == set(backend_checks.BACKEND_CHECKS)
