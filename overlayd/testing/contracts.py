"""What every driver promises, as checks that its author runs: docs/write-a-backend.md shows how.

Each check is an async function of one argument, to be run by `trio.run`; it raises AssertionError with a sentence
for what is not as promised.  They need no test runner, and work with any:

    @pytest.mark.parametrize("check", DRIVER_CHECKS, ids=lambda check: check.__name__)
    def test_driver(check): trio.run(check, case)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from itertools import permutations

import trio

from overlayd.core.kernel.driver import (
    ALL,
    Driver,
    Operation,
    Scope,
    Verb,
    is_named,
)
from overlayd.core.kernel.items import Item, KernelState, Key, Removal
from overlayd.core.kernel.plan import diff
from overlayd.host.persistent_driver import format_items, parse_items
from overlayd.testing.changes import open_changes

ROUNDS = 4
"""How often a state may have to be planned until it is reached, as the reconciler does in one pass."""
PATIENCE = 10.0
"""Seconds until a change must have been told."""

EMPTY = KernelState()


@dataclass(frozen=True)
class DriverCase:
    """A driver to check, in a world of its own that has nothing of ours.

    `open` opens the driver in that world, more than once, one after the other.  Opened by `host.drivers`, with a
    run directory, it may be one of several.  `states` are desired states of
    its kinds, two at least, not empty, each of which can be reached there; the more their items differ under the
    same keys, the more is checked.  `disturb` changes something behind the driver's back and returns the keys of
    what it changed; None where nothing can.
    """

    open: Callable[[], AbstractAsyncContextManager[Driver]]
    states: Sequence[KernelState]
    scope: Scope = field(default_factory=Scope)
    disturb: Callable[[Driver], Awaitable[frozenset[Key]]] | None = None


async def check_items_say_what_planning_needs(case: DriverCase) -> None:
    """Check that keys begin with the noun, needs rank lower, and the text is one printable line."""
    async with case.open() as driver:
        kinds = driver.kinds
        nouns = {kind.noun for kind in kinds}
        assert len(nouns) == len(kinds) or not driver.is_volatile, "two kinds have one noun"
    for state in case.states:
        for item in state:
            assert type(item) in kinds, f"{type(item).__qualname__} is not among the driver's kinds"
            assert item.key[0] == item.noun, f"the key of {item} does not begin with {item.noun!r}"
            assert hash(item) == hash(dataclasses.replace(item)), f"{item} is not the same as its copy"  # type: ignore[type-var]
            assert str(item).isprintable(), f"{item!r} does not print as one line"
            assert str(item) != repr(item), f"{item!r} has no text of its own"
            if item.container is not None:
                assert item.container[0] == item.within, f"{item} is not within {item.within!r}"
            for key in item.needs(state.by_key):
                other = state.by_key.get(key)
                assert other is None or other.rank < item.rank, f"{item} does not rank above {other}"
        texts = [str(item) for item in state]
        assert len(set(texts)) == len(texts), "two items print alike"


async def check_nothing_is_ours_before_it_is_added(case: DriverCase) -> None:
    async with case.open() as driver:
        found = _wanted(await driver.observe(case.scope))
        assert not found, f"nothing was added, and {_lines(found)} is there"
        assert driver.report() is None, "it reports a datapath that was not asked for"


async def check_each_state_is_reached_from_each_other(case: DriverCase) -> None:
    async with case.open() as driver:
        for before, after in permutations((EMPTY, *case.states), 2):
            await _reach(driver, case, before)
            await _reach(driver, case, after)
        await _reach(driver, case, EMPTY)


async def check_a_plan_is_reached_in_one_round(case: DriverCase) -> None:
    """Check, from an empty state, that added items are observed as they were added."""
    async with case.open() as driver:
        for state in case.states:
            await _reach(driver, case, EMPTY)
            await _apply(driver, case, state)
            _compare(await driver.observe(case.scope), state)
        await _reach(driver, case, EMPTY)


async def check_adding_and_removing_again_succeed(case: DriverCase) -> None:
    async with case.open() as driver:
        for state in case.states:
            await _reach(driver, case, state)
            for item in state:
                await _succeed(driver, Operation(Verb.ADD, item))
            _compare(await driver.observe(case.scope), state)
            await _reach(driver, case, EMPTY)
            for item in reversed(list(state)):
                await _succeed(driver, Operation(Verb.REMOVE, item))
            _compare(await driver.observe(case.scope), EMPTY)


async def check_a_refusal_keeps_nothing_else_from_being_done(case: DriverCase) -> None:
    """Check that an item without its container is refused, and that the other operations are done."""
    async with case.open() as driver:
        for state in case.states:
            contained = [item for item in state if item.container in state.by_key]
            free = [item for item in state if item.container is None]
            for item in contained:
                await _reach(driver, case, EMPTY)
                alone = [other for other in free if other.key != item.container]
                operations = [Operation(Verb.ADD, each) for each in (item, *alone)]
                outcomes = await driver.apply(operations)
                assert len(outcomes) == len(operations), "there is not one outcome for each operation"
                assert outcomes[0] is not None, f"{item} is not refused without {item.container}"
                assert outcomes[0].reason, f"the refusal of {item} has no reason"
                assert not any(outcomes[1:]), f"what was added with {item} is refused, too: {outcomes[1:]}"
        await _reach(driver, case, EMPTY)


async def check_named_items_are_observed(case: DriverCase) -> None:
    """Check that items are observed by their key and by that of their container, and not once removed."""
    async with case.open() as driver:
        for state in case.states:
            await _reach(driver, case, state)
            for key in {key for item in state for key in (item.key, item.container) if key is not None}:
                keys = frozenset({key})
                found = await driver.observe(case.scope, keys)
                for item in state:
                    if is_named(keys, item):
                        assert found.by_key.get(item.key) == item, f"{item} is not observed by the key {key}"
            await _reach(driver, case, EMPTY)
            for item in state:
                found = await driver.observe(case.scope, frozenset({item.key}))
                if item.removal is not Removal.NEVER:
                    assert item.key not in found.by_key, f"{item} is observed after it went"


async def check_the_next_life_knows_what_is_ours(case: DriverCase) -> None:
    """Check that items that outlive the process are recognised, and that those in it can be saved and added
    again."""
    for state in case.states:
        async with case.open() as driver:
            await _reach(driver, case, state)
            volatile = driver.is_volatile
        async with case.open() as driver:
            found = await driver.observe(case.scope)
            if volatile:
                assert not found, f"{_lines(found.items)} outlived the driver, which says that it is volatile"
                text = format_items(state)
                assert parse_items(text, driver.kinds) == state, f"not read as it was written: {text}"
            else:
                _compare(found, state)
            await _reach(driver, case, state)
            await _reach(driver, case, EMPTY)


async def check_changes_are_told(case: DriverCase) -> None:
    """Check that changes not made by `apply` are reported, with their keys or as ALL."""
    if case.disturb is None:
        return
    async with case.open() as driver:
        await _reach(driver, case, case.states[0])
        async with open_changes(driver) as changes:
            changed = await case.disturb(driver)
            told: set[Key] = set()
            with trio.move_on_after(PATIENCE):
                while not changed <= told:
                    keys = await changes.wait()
                    told |= changed if keys is ALL else keys | {key for key in changed if key in keys}
            assert changed <= told, f"there was no word of {changed - told}"
        await _reach(driver, case, EMPTY)


DriverCheck = Callable[[DriverCase], Awaitable[None]]
DRIVER_CHECKS: Sequence[DriverCheck] = (
    check_items_say_what_planning_needs,
    check_nothing_is_ours_before_it_is_added,
    check_a_plan_is_reached_in_one_round,
    check_each_state_is_reached_from_each_other,
    check_adding_and_removing_again_succeed,
    check_a_refusal_keeps_nothing_else_from_being_done,
    check_named_items_are_observed,
    check_the_next_life_knows_what_is_ours,
    check_changes_are_told,
)


async def _reach(driver: Driver, case: DriverCase, state: KernelState) -> None:
    for _ in range(ROUNDS):
        if not await _apply(driver, case, state):
            break
    _compare(await driver.observe(case.scope), state)


async def _apply(driver: Driver, case: DriverCase, state: KernelState) -> bool:
    """Tell whether there was anything to do."""
    plan = diff(state, await driver.observe(case.scope), sweep=True)
    for stage in plan.stages:
        outcomes = await driver.apply(stage)
        assert len(outcomes) == len(stage), "there is not one outcome for each operation"
        for operation, failure in zip(stage, outcomes, strict=True):
            assert failure is None, f"refused to {operation}: {failure.reason}"
    return bool(plan)


async def _succeed(driver: Driver, operation: Operation) -> None:
    [failure] = await driver.apply([operation])
    assert failure is None, f"refused to {operation}: {failure.reason}"


def _compare(found: KernelState, wanted: KernelState) -> None:
    missing = wanted.items - found.items
    needless = _wanted(found) - wanted.items
    assert not missing, f"not observed: {_lines(missing)}; there is {_lines(found.items)}"
    assert not needless, f"observed, and not asked for: {_lines(needless)}"


def _wanted(state: KernelState) -> frozenset[Item]:
    """Return all but what never goes."""
    return frozenset(item for item in state.items if item.removal is not Removal.NEVER)


def _lines(items: frozenset[Item]) -> str:
    return "; ".join(sorted(map(str, items))) or "nothing"
