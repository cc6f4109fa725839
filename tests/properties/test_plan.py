"""The plan: it converges, takes away nothing that it should not, and never leaves a route without its VTEP."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

from hypothesis import given

from overlayd.core.firewall.nftables import TABLE_KEY, NftChain, NftTable, Sender
from overlayd.core.kernel.datapath import Datapath, Encap
from overlayd.core.kernel.driver import Operation, Verb
from overlayd.core.kernel.items import Item, KernelState, Key, Link, Neighbour, OnLink, Route
from overlayd.core.kernel.plan import diff
from support.kernelstates import desired_states, firewalls, observations, udp_wishes


def carry_out(state: dict[Key, Item], operation: Operation) -> None:
    """The kernel's part, strictly: each operation must find what its verb says, and a link must be there."""
    item = operation.item
    if operation.verb is Verb.ADD:
        assert item.key not in state
    else:
        assert state[item.key] == (operation.was or item)
    if operation.verb is Verb.REMOVE:
        del state[item.key]
        if isinstance(item, NftTable):
            empty_table(state)
        if isinstance(item, Link):
            for key in [key for key, other in state.items() if getattr(other, "link", None) == item.name]:
                del state[key]
        return
    if isinstance(item, OnLink) and item.link != "eth0":
        assert ("link", item.link) in state, f"{item} has no link"
    if isinstance(item, Encap):
        assert ("datapath", item.link) in state, f"{item} has no datapath"
    if isinstance(item, NftChain | Sender):
        assert TABLE_KEY in state, f"{item} has no table"
    if isinstance(item, NftTable):
        empty_table(state)
    state[item.key] = item


def empty_table(state: dict[Key, Item]) -> None:
    for key in [key for key, other in state.items() if isinstance(other, NftChain | Sender)]:
        del state[key]


def routes_without_vtep(state: dict[Key, Item]) -> set[Item]:
    lost: set[Item] = set()
    for item in state.values():
        if isinstance(item, Route) and item.onlink:
            neighbour = state.get(("neighbour", item.link, item.gateway))
            if not isinstance(neighbour, Neighbour) or ("fdb", item.link, neighbour.mac) not in state:
                lost.add(item)
    return lost


@given(desired_states(), observations)
def test_a_plan_turns_the_observation_into_the_wish(desired: KernelState, actual: KernelState) -> None:
    state = dict(actual.by_key)
    for operation in diff(desired, actual, sweep=True):
        carry_out(state, operation)
    assert set(state.values()) == desired.items
    assert not diff(desired, KernelState.of(state.values()), sweep=True)


@given(desired_states(), observations)
def test_without_a_sweep_only_what_is_in_the_way_goes(desired: KernelState, actual: KernelState) -> None:
    state = dict(actual.by_key)
    plan = diff(desired, actual, sweep=False)
    replaced = {
        operation.item.name
        for operation in plan
        if isinstance(operation.item, Link) and operation.verb is Verb.REMOVE
    }
    made_anew = any(isinstance(o.item, NftTable) and o.verb is Verb.CHANGE for o in plan)
    for operation in plan:
        carry_out(state, operation)
    assert desired.items <= set(state.values())
    for key, item in actual.by_key.items():
        on = item.name if isinstance(item, Link) else getattr(item, "link", None)
        assert key in state or on in replaced or (made_anew and isinstance(item, NftChain | Sender))


@given(desired_states(), observations)
def test_no_step_of_a_plan_leaves_a_route_without_its_vtep(desired: KernelState, actual: KernelState) -> None:
    state = dict(actual.by_key)
    broken_before = routes_without_vtep(state)
    for operation in diff(desired, actual, sweep=True):
        carry_out(state, operation)
        assert routes_without_vtep(state) <= broken_before, f"after {operation}"
    assert not routes_without_vtep(state)


@given(firewalls(), observations)
def test_at_no_step_of_a_plan_a_chain_drops_what_is_to_be_let_in(
    desired: KernelState, actual: KernelState
) -> None:
    """A chain drops what comes from nobody in the set: all that lasts must be there as long as the chain is, and
    all that is desired when it comes."""
    state = dict(actual.by_key)

    def senders(items: Iterable[Item]) -> set[Item]:
        return {item for item in items if isinstance(item, Sender)}

    for operation in diff(desired, actual, sweep=True):
        carry_out(state, operation)
        if any(isinstance(item, NftChain) for item in state.values()):
            assert senders(actual.items & desired.items) <= senders(state.values())
        if isinstance(operation.item, NftChain) and operation.verb is not Verb.REMOVE:
            assert senders(desired.items) <= senders(state.values())


def overlaps(state: dict[Key, Item]) -> bool:
    """Whether a datapath would have to send one address two ways."""
    prefixes = [item.prefix for item in state.values() if isinstance(item, Encap)]
    prefixes += [prefix for item in state.values() if isinstance(item, Datapath) for prefix in item.own]
    return any(one.overlaps(other) for one, other in combinations(prefixes, 2))


@given(udp_wishes(), udp_wishes())
def test_no_step_from_one_table_to_another_has_an_address_at_two_places(
    before: KernelState, after: KernelState
) -> None:
    state = dict(before.by_key)
    for operation in diff(after, before, sweep=True):
        carry_out(state, operation)
        assert not overlaps(state), f"after {operation}"


@given(desired_states(), observations)
def test_what_an_operation_needs_comes_before_it(desired: KernelState, actual: KernelState) -> None:
    plan = diff(desired, actual, sweep=True)
    stage_of = {
        operation.item.key: number
        for number, stage in enumerate(plan.stages)
        for operation in stage
        if operation.verb is not Verb.REMOVE
    }
    for number, stage in enumerate(plan.stages):
        for operation in stage:
            assert all(stage_of.get(key, -1) < number for key in operation.needs)


@given(desired_states())
def test_a_wish_that_is_reached_needs_no_plan(desired: KernelState) -> None:
    assert not diff(desired, desired, sweep=True)
    assert len(diff(desired, KernelState(), sweep=True)) == len(desired)
