"""The conditions of a node and of a peer: what is so, since when, and why not.

One judge for all that is concluded from a status.  It takes what a status says (belief, what was read, what is
programmed, problems), and the instant of the question: a lease runs out and a status grows old by themselves.
Old or missing facts never make a condition true: they make it unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from overlayd.core.leases.tenure import Belief
from overlayd.core.status.problem import Problem
from overlayd.core.status.registry import REGISTRY, TRUE_WHEN, ConditionType, Severity, Truth
from overlayd.core.status.status import STALE_AFTER, Condition, PeerState, ProblemStatus, Status

_LEASE = {
    Belief.HELD: (Truth.TRUE, ""),
    Belief.FENCED: (Truth.UNKNOWN, "lease-fenced"),
    Belief.LOST: (Truth.FALSE, "lease-lost"),
    Belief.UNCLAIMED: (Truth.FALSE, "lease-unclaimed"),
}


def as_of(status: Status, now: float) -> Status:
    """Return the status at `now`, with belief, conditions and problems of that instant."""
    problems = [*status.problems, *map(told, _problems_of_time(status, now))]
    current = msgspec.structs.replace(
        status, belief=_believe(status, now).value, problems=tuple(sorted(problems, key=_worst_first))
    )
    return msgspec.structs.replace(current, conditions=_judge_node(current, now))


def told(problem: Problem) -> ProblemStatus:
    return ProblemStatus(problem.code, problem.text, problem.remedy)


def severity_of(code: str) -> Severity:
    """Tell how bad a problem is; one of another version of overlayd is at least bad."""
    return REGISTRY[code].severity if code in REGISTRY else Severity.DEGRADED


def judge_peer(state: PeerState, since: float, message: str) -> tuple[Condition, ...]:
    """Judge one peer by how far its entries are."""
    if state is PeerState.IN_SYNC:
        return (Condition(ConditionType.PROGRAMMED, Truth.TRUE, since),)
    return (Condition(ConditionType.PROGRAMMED, Truth.FALSE, since, state.value, message),)


def _worst_first(problem: ProblemStatus) -> tuple[int, str, str]:
    return -severity_of(problem.code), problem.code, problem.text


def _stale_since(status: Status) -> float:
    return status.at + STALE_AFTER * status.resync


def _believe(status: Status, now: float) -> Belief:
    """Evaluate Tenure.belief at a later instant than that of the status."""
    believed = Belief(status.belief)
    return Belief.FENCED if believed is Belief.HELD and _ran_out(status, now) is not None else believed


def _ran_out(status: Status, now: float) -> float | None:
    """Tell when the lease expired, None if it did not."""
    until = status.lease.until if status.lease is not None else None
    return until if until is not None and now >= until else None


def _problems_of_time(status: Status, now: float) -> Iterable[Problem]:
    """Name what is wrong by the passing of time alone, unless the status names it already."""
    named = {problem.code for problem in status.problems}
    if now > _stale_since(status) and "status-stale" not in named:
        yield Problem(
            "status-stale",
            f"the daemon last looked at the kernel {now - status.at:.0f} s ago",
            "Start it again: systemctl restart overlayd",
        )
    ran_out = _ran_out(status, now)
    if Belief(status.belief) is Belief.HELD and ran_out is not None and "lease-fenced" not in named:
        yield Problem(
            "lease-fenced",
            "this node can't tell whether its lease still holds: it could not be renewed in time",
            "It goes on as before, and asks again",
        )


def _judge_node(status: Status, now: float) -> tuple[Condition, ...]:
    """Judge each condition; where its truth is as it was in the status, its `since` goes on."""
    worst: dict[ConditionType, ProblemStatus] = {}
    for problem in status.problems:  # the worst comes first
        if problem.code in REGISTRY:
            worst.setdefault(REGISTRY[problem.code].about, problem)
    before = {condition.type: condition for condition in status.conditions}
    found = []
    for type_ in ConditionType:
        truth, reason, message, since = _judge(type_, status, worst, now)
        was = before.get(type_)
        found.append(Condition(type_, truth, was.since if was and was.status is truth else since, reason, message))
    return tuple(found)


def _judge(
    type_: ConditionType, status: Status, worst: Mapping[ConditionType, ProblemStatus], now: float
) -> tuple[Truth, str, str, float]:
    """Judge a condition: its truth, the reason, the sentence about it, and since when at the latest."""
    stale, problem = worst.get(ConditionType.ALIVE), worst.get(type_)
    if stale is not None:
        truth = Truth.FALSE if type_ is ConditionType.ALIVE else Truth.UNKNOWN
        return truth, stale.code, stale.text, min(now, _stale_since(status))
    reason, message = (problem.code, problem.text) if problem is not None else ("", "")
    match type_:
        case ConditionType.LEASE_HELD:
            belief = Belief(status.belief)
            truth, default = _LEASE[belief]
            if truth is Truth.TRUE:
                return truth, reason, message, now
            message = f"this node's lease is {belief.value}"
            ran_out = _ran_out(status, now)
            if belief is not Belief.FENCED or ran_out is None:
                return truth, reason or default, message, now
            message += (
                f": it could not be renewed in time, and since {now - ran_out:.0f} s ago "
                "another node may have been given the subnet"
            )
            return truth, reason or default, message, ran_out
        case ConditionType.IN_SYNC if status.in_sync:
            return Truth.TRUE, "", "", now
        case ConditionType.IN_SYNC:
            away = worst.get(ConditionType.STORE_REACHABLE)
            return Truth.FALSE, away.code if away else "", "the store has not been read yet", now
        case ConditionType.PROGRAMMED if status.programmed:
            return Truth.TRUE, reason, message, now
        case ConditionType.PROGRAMMED:
            truth = Truth.FALSE if _is_seen(type_, status) else Truth.UNKNOWN
            truth = REGISTRY[reason].truth if reason else truth
            return truth, reason, "what this node itself needs is not all in the kernel", now
    if problem is not None:
        return REGISTRY[reason].truth, reason, message, now
    if _is_seen(type_, status):
        return Truth.TRUE, "", "", now
    return Truth.UNKNOWN, "", f"it is not known yet whether {TRUE_WHEN[type_]}", now


def _is_seen(type_: ConditionType, status: Status) -> bool:
    """Tell whether that was looked at of which the silence about a problem makes the condition true."""
    match type_:
        case ConditionType.ALIVE | ConditionType.STATE_KEPT:
            return True
        case ConditionType.STORE_REACHABLE | ConditionType.STORE_SOUND:
            return status.in_sync
        case ConditionType.UNDERLAY_UP:
            return status.underlay is not None
        case ConditionType.PUBLISHED:
            return status.programmed and Belief(status.belief) is Belief.HELD
    return status.network is not None
