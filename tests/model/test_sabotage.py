"""Each precaution of the protocol, left out, leads to a state that must not be: so the checker sees, and the
precaution is needed.  Those that are not needed for safety are listed as such, and proven to be so."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from support.model import sabotage
from support.model.liveness import find_stuck
from support.model.model import Model
from support.model.reduction import careful
from support.model.scenarios import HALVES, ONE, RESTORED, TWO
from support.model.search import Found, search
from support.model.trace_printer import print_trace
from support.model.world import Budget, ModelScenario, Rules, Step

AT_MOST = 80_000
PLAIN = ModelScenario("two nodes, every message on its own", (ONE,), Budget(end=1), nodes=2)
PROMISE = replace(PLAIN, recorded=False)
"""Only two nodes on one subnet count."""
SLOW = replace(PROMISE, budget=Budget(end=1, faults=1, slip=1))
LENGTHS = ModelScenario("two lengths", (TWO, HALVES), Budget(configure=1), nodes=2, brisk=True, recorded=False)
BACK = ModelScenario(
    "a config, and back", (ONE, HALVES, ONE), Budget(configure=2, faults=1, linger=1), nodes=1, brisk=True
)
LIVES = ModelScenario("a life after another", (ONE,), Budget(faults=2, crash=1, linger=1), nodes=1, brisk=True)
RESERVED = ModelScenario(
    "a reservation, given again",
    (ONE,),
    Budget(reserve=2),
    nodes=2,
    brisk=True,
    reserved=(("10.244.1.0/24", 0),),
    reservable=("10.244.1.0/24",),
)
RESERVED_LIVES = replace(RESERVED, name="a reservation, and a life after another", budget=LIVES.budget)
BY_HAND = replace(RESERVED, name="a reservation, deleted by hand", reserved=(), by_hand=True, recorded=False)

NEEDED: list[tuple[Step, ModelScenario]] = [
    (sabotage.claims_whatever_is_there, PROMISE),
    (sabotage.claims_under_any_config, LENGTHS),
    (sabotage.claims_what_another_holds, BY_HAND),
    (sabotage.claims_while_frozen, RESTORED),
    (sabotage.rewrites_blindly, LIVES),
    (sabotage.rewrites_on_any_grant, LIVES),
    (sabotage.rewrites_any_life_of_the_key, RESERVED),
    (sabotage.takes_any_hold, RESERVED_LIVES),
    (sabotage.releases_blindly, BACK),
    (sabotage.believes_from_the_answer, PROMISE),
    (sabotage.leaves_no_margin, SLOW),
    (sabotage.renews_like_flannel, PROMISE),
]
"""Precautions against what the protocol's own participants can do, and where each is missed."""

REDUNDANT: list[tuple[Step, ModelScenario]] = [
    (sabotage.releases_any_life_of_the_key, BACK),
    (sabotage.releases_on_any_grant, BACK),
    (sabotage.trusts_a_lost_answer, LIVES),
    (sabotage.decides_on_old_news, LIVES),
    (sabotage.knows_every_life, LIVES),
]
"""What another guard of the same transaction makes up for, what only saves vain attempts, or what is there for two
daemons with one identity."""


@cache
def _sound(scenario: ModelScenario) -> Found:
    return search(Model(scenario), AT_MOST)


def _name(value: object) -> str:
    return value.name if isinstance(value, ModelScenario) else getattr(value, "__name__", str(value))


@pytest.mark.parametrize(("step", "scenario"), NEEDED, ids=_name)
def test_without_the_precaution_the_promise_breaks(step: Step, scenario: ModelScenario) -> None:
    sound = _sound(scenario)
    assert sound.violation is None
    model = Model(scenario, Rules(step=step))
    found = search(model, AT_MOST)
    assert found.violation is not None, f"{found.states} states, and it is never missed"
    print(print_trace(model, found))


@pytest.mark.parametrize(("step", "scenario"), REDUNDANT, ids=_name)
def test_without_the_precaution_the_promise_holds_all_the_same(step: Step, scenario: ModelScenario) -> None:
    model = Model(scenario, Rules(step=step), plain=careful)
    found = search(model, AT_MOST)
    assert found.complete
    assert found.violation is None, print_trace(model, found)


@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(replace(PROMISE, early_end=True), id="etcd ends a lease before its time"),
        pytest.param(replace(PROMISE, idle_keepalive=True), id="etcd acknowledges a keepalive and forgets it"),
        pytest.param(replace(PROMISE, twins=True), id="two daemons have one identity"),
        pytest.param(replace(PROMISE, budget=Budget(end=1, faults=3, slip=3)), id="a clock is too slow"),
        pytest.param(replace(RESTORED, freeze=False), id="etcd is restored and claims go on"),
        pytest.param(
            replace(RESERVED, budget=Budget(reserve=1), reserved=(), force=True, recorded=False),
            id="an operator forces a release",
        ),
    ],
)
def test_outside_the_assumptions_the_promise_breaks(scenario: ModelScenario) -> None:
    model = Model(scenario)
    found = search(model, AT_MOST)
    assert found.violation is not None
    print(print_trace(model, found))


def test_a_record_that_no_one_can_read_is_seen() -> None:
    found = search(Model(PROMISE, Rules(step=sabotage.writes_what_no_one_can_read)), AT_MOST)
    assert found.violation == "lease 10.244.1.0/24 gives neither PublicIP nor PublicIPv6"


@pytest.mark.parametrize("scenario", [PLAIN, RESERVED], ids=_name)
def test_a_keeper_that_never_comes_to_rest_is_seen(scenario: ModelScenario) -> None:
    model = Model(scenario, Rules(step=sabotage.never_looks_again), plain=careful)
    assert find_stuck(model, search(model, 5_000).seen) is not None


def test_flannels_rule_puts_two_nodes_on_one_subnet() -> None:
    model = Model(PROMISE, Rules(step=sabotage.renews_like_flannel))
    found = search(model, AT_MOST)
    assert found.violation == "node 0 holds 10.244.1.0/24 and node 1 holds 10.244.1.0/24"
    assert "put subnets/10.244.1.0-24 on lease" in print_trace(model, found)
