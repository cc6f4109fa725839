"""What is concluded from the conditions of a status: is the daemon alive, is its node ready for pods, is all well?

*Alive* means that the daemon's loop goes round; one that is not alive may be started again, which harms nothing.
*Ready* means that a pod which starts now gets an address that is this node's to give, and a way to the others.  A
peer that can't be served makes a node degraded, but not unready: the pods of all other peers can be reached.

A condition that is not known to be true counts against all three.  Sentences are for people; "" means that all is
well.
"""

from __future__ import annotations

from collections.abc import Iterator

from overlayd.core.status.conditions import as_of, severity_of
from overlayd.core.status.registry import ConditionType, Severity, Truth
from overlayd.core.status.status import Condition, Status, StatusAnswer, Verdict

_PODS_NEED = (
    ConditionType.ALIVE,
    ConditionType.LEASE_HELD,
    ConditionType.IN_SYNC,
    ConditionType.PROGRAMMED,
)
"""Conditions without which no node is ready; any other counts while its reason is as severe."""


def answer(status: Status, now: float) -> StatusAnswer:
    """Answer a question that is asked at `now`, in seconds of CLOCK_BOOTTIME."""
    current = as_of(status, now)
    verdict, reason = _judge(current)
    return StatusAnswer(now, verdict, reason, current)


def is_true(told: StatusAnswer, type_: ConditionType) -> bool:
    """Tell whether a node's condition is known to be true."""
    return any(condition.type is type_ and condition.status is Truth.TRUE for condition in told.status.conditions)


def why_not_alive(told: StatusAnswer) -> str:
    return next((found.message for found in _not_true(told.status) if found.type is ConditionType.ALIVE), "")


def why_not_ready(told: StatusAnswer) -> str:
    return next((found.message for found in _not_true(told.status) if _is_needed(found)), "")


def _judge(status: Status) -> tuple[Verdict, str]:
    """Judge what the status says, and why, "" if it is healthy."""
    not_true = list(_not_true(status))
    for found in filter(_is_needed, not_true):
        cannot_tell = found.type is ConditionType.ALIVE or (
            found.type is ConditionType.LEASE_HELD and found.status is Truth.UNKNOWN
        )
        return Verdict.UNKNOWN if cannot_tell else Verdict.DEGRADED, found.message
    out_of_sync = len(status.peers) - status.peers_in_sync
    if out_of_sync:
        return Verdict.DEGRADED, f"{out_of_sync} of {len(status.peers)} peers are not in sync"
    if status.problems:
        return Verdict.DEGRADED, "there are problems"
    for found in not_true:
        return Verdict.DEGRADED, found.message
    return Verdict.HEALTHY, ""


def _not_true(status: Status) -> Iterator[Condition]:
    return (condition for condition in status.conditions if condition.status is not Truth.TRUE)


def _is_needed(condition: Condition) -> bool:
    return condition.type in _PODS_NEED or severity_of(condition.reason) is Severity.UNREADY
