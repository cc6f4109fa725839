"""The conditions of a node: true only where it was looked, `since` goes on, and time alone makes them unknown."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlayd.core.leases.tenure import Belief
from overlayd.core.status.conditions import as_of, judge_peer
from overlayd.core.status.health import answer, why_not_alive, why_not_ready
from overlayd.core.status.registry import REGISTRY, ConditionType, Severity, Truth
from overlayd.core.status.status import (
    Condition,
    LeaseStatus,
    PeerState,
    ProblemStatus,
    Status,
    UnderlayStatus,
    Verdict,
)
from support.statuses import GOOD, NOW, REFUSED

replace = msgspec.structs.replace
BARE = Status("0.1.0", NOW, 30.0, "node1", "ab12", NOW, "unclaimed", in_sync=False, revision=0)
UNKNOWN_AT_START = set(ConditionType) - {
    ConditionType.ALIVE,
    ConditionType.LEASE_HELD,
    ConditionType.IN_SYNC,
    ConditionType.STATE_KEPT,
}


def conditions(status: Status, now: float = NOW) -> dict[ConditionType, Condition]:
    return {condition.type: condition for condition in as_of(status, now).conditions}


def truths(status: Status, now: float = NOW) -> dict[ConditionType, Truth]:
    return {type_: condition.status for type_, condition in conditions(status, now).items()}


def test_good_status_has_every_condition_true() -> None:
    assert truths(GOOD) == dict.fromkeys(ConditionType, Truth.TRUE)
    assert all(condition.reason == "" for condition in as_of(GOOD, NOW).conditions)


def test_daemon_that_has_just_started_claims_nothing() -> None:
    found = truths(BARE)
    assert {type_ for type_, truth in found.items() if truth is Truth.UNKNOWN} == UNKNOWN_AT_START
    assert found[ConditionType.LEASE_HELD] is found[ConditionType.IN_SYNC] is Truth.FALSE


@pytest.mark.parametrize("code", REGISTRY)
def test_every_problem_makes_its_condition_speak(code: str) -> None:
    row = REGISTRY[code]
    spoiled = replace(GOOD, problems=(ProblemStatus(code, "a sentence"),))
    found = conditions(spoiled)[row.about]
    assert found.reason == code
    by_facts = {ConditionType.LEASE_HELD, ConditionType.PROGRAMMED}
    assert found.status is (Truth.TRUE if row.about in by_facts else row.truth)
    told = answer(spoiled, NOW)
    assert told.verdict is not Verdict.HEALTHY
    if row.severity is Severity.DEGRADED:
        assert why_not_ready(told) == ""
    elif row.about not in by_facts:
        assert why_not_ready(told) == "a sentence"


def test_worst_problem_of_a_condition_is_its_reason() -> None:
    problems = (ProblemStatus("cni-shadowed", "first by name"), ProblemStatus("subnet-file-unwritable", "worse"))
    spoiled = as_of(replace(GOOD, problems=problems), NOW)
    assert conditions(spoiled)[ConditionType.PUBLISHED].message == "worse"
    assert [problem.text for problem in spoiled.problems] == ["worse", "first by name"]


def test_since_goes_on_while_the_truth_is_the_same() -> None:
    first = as_of(GOOD, NOW)
    spoiled = as_of(replace(first, at=NOW + 9, belief="lost", lease=None), NOW + 10)
    assert conditions(spoiled, NOW + 11)[ConditionType.LEASE_HELD].since == NOW + 10
    assert conditions(spoiled, NOW + 11)[ConditionType.IN_SYNC].since == NOW


def test_lease_that_runs_out_by_itself_is_fenced_since_that_instant() -> None:
    assert GOOD.lease is not None
    assert GOOD.lease.until is not None
    status = as_of(replace(GOOD, at=GOOD.lease.until - 1), NOW)
    late = as_of(status, GOOD.lease.until + 7)
    assert late.belief == Belief.FENCED.value
    found = conditions(late, GOOD.lease.until + 7)[ConditionType.LEASE_HELD]
    assert (found.status, found.reason, found.since) == (Truth.UNKNOWN, "lease-fenced", GOOD.lease.until)
    assert [problem.code for problem in late.problems] == ["lease-fenced"]
    assert answer(status, GOOD.lease.until - 0.5).verdict is Verdict.HEALTHY


def test_status_that_is_too_old_leaves_nothing_known() -> None:
    status = as_of(GOOD, NOW)
    limit = GOOD.at + 2 * GOOD.resync
    assert answer(status, limit).verdict is Verdict.HEALTHY
    told = answer(status, limit + 100)
    found = {condition.type: condition for condition in told.status.conditions}
    assert found.pop(ConditionType.ALIVE).status is Truth.FALSE
    assert {(c.status, c.reason, c.since) for c in found.values()} == {(Truth.UNKNOWN, "status-stale", limit)}
    assert told.verdict is Verdict.UNKNOWN
    assert why_not_alive(told) == "the daemon last looked at the kernel 160 s ago"


def test_peer_is_programmed_or_says_why_not() -> None:
    assert judge_peer(PeerState.IN_SYNC, 3.0, "") == (Condition(ConditionType.PROGRAMMED, Truth.TRUE, 3.0),)
    [found] = judge_peer(REFUSED.state, REFUSED.since, REFUSED.reason)
    assert (found.status, found.reason, found.message) == (Truth.FALSE, "refused", "runs backend 'udp'")


statuses = st.builds(
    replace,
    st.just(GOOD),
    at=st.floats(NOW - 200, NOW),
    belief=st.sampled_from([belief.value for belief in Belief]),
    lease=st.sampled_from([GOOD.lease, LeaseStatus("10.244.7.0/24", NOW, NOW - 1), None]),
    in_sync=st.booleans(),
    programmed=st.booleans(),
    network=st.sampled_from([None, "10.244.0.0/16"]),
    underlay=st.sampled_from([None, UnderlayStatus("eth0", "10.99.0.1", "10.99.0.1", 1500)]),
    peers=st.sampled_from([(), (REFUSED,)]),
    problems=st.lists(
        st.builds(ProblemStatus, st.sampled_from([*REGISTRY, "of-a-later-version"]), st.just("a sentence")),
        max_size=3,
    ).map(tuple),
)


@given(statuses)
def test_healthy_is_said_only_where_nothing_is_wrong_or_unknown(status: Status) -> None:
    told = answer(status, NOW)
    is_good = all(condition.status is Truth.TRUE for condition in told.status.conditions)
    assert (told.verdict is Verdict.HEALTHY) == (is_good and not status.problems and not status.peers)
    assert (told.reason == "") == (told.verdict is Verdict.HEALTHY)
    if told.verdict is Verdict.HEALTHY:
        assert why_not_ready(told) == why_not_alive(told) == ""
    assert all(condition.status is Truth.TRUE or condition.message for condition in told.status.conditions)


@given(statuses, st.floats(0, 500))
def test_judging_twice_changes_nothing(status: Status, later: float) -> None:
    once = as_of(status, NOW + later)
    assert as_of(once, NOW + later) == once
