"""The keeper's step with one of its precautions taken away.

Each of these is what somebody might leave out, thinking that it does no harm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from overlayd.core.leases.codec import encode_attributes, format_subnet_name
from overlayd.core.leases.keeper import claimer
from overlayd.core.leases.keeper.recognition import margin
from overlayd.core.leases.keeper.state import (
    AskCommit,
    AskGrant,
    Command,
    Event,
    Granted,
    KeeperState,
    KeptAlive,
    RefreshView,
)
from overlayd.core.leases.store import (
    CONFIG,
    FROZEN,
    HELD,
    SUBNETS,
    Delete,
    Field,
    Guard,
    Put,
    Transaction,
)
from support.model.world import Step

Drop = Callable[[Guard, Transaction], bool]


def _without(drop: Drop) -> Step:
    def step(state: KeeperState, event: Event, now: float, chance: float) -> tuple[KeeperState, Command | None]:
        state, command = claimer.step(state, event, now, chance)
        if isinstance(command, AskCommit):
            asked = command.transaction
            kept = tuple(guard for guard in asked.guards if not drop(guard, asked))
            command = replace(command, transaction=replace(asked, guards=kept))
            state = replace(state, pending=command)
        return state, command

    return step


def _deletes(transaction: Transaction) -> bool:
    return all(isinstance(action, Delete) for action in transaction.actions)


def _claims(transaction: Transaction) -> bool:
    return any(guard.name == CONFIG for guard in transaction.guards)


def _rewrites(transaction: Transaction) -> bool:
    return not _deletes(transaction) and not _claims(transaction)


def _is_subnet(guard: Guard, field: Field) -> bool:
    return guard.name.startswith(SUBNETS) and guard.field is field


def believes_from_the_answer(
    state: KeeperState, event: Event, now: float, chance: float
) -> tuple[KeeperState, Command | None]:
    if isinstance(event, Granted | KeptAlive):
        event = replace(event, sent_at=now)
    return claimer.step(state, event, now, chance)


def leaves_no_margin(
    state: KeeperState, event: Event, now: float, chance: float
) -> tuple[KeeperState, Command | None]:
    state, command = claimer.step(state, event, now, chance)
    if isinstance(event, Granted):
        state = replace(state, until=state.until + margin(event.grant.ttl))
    elif isinstance(event, KeptAlive) and event.ttl:
        state = replace(state, until=state.until + margin(event.ttl))
    return state, command


def renews_like_flannel(
    state: KeeperState, event: Event, now: float, chance: float
) -> tuple[KeeperState, Command | None]:
    """Once its grant is gone it takes a new one, and puts its key with no guard."""
    if isinstance(event, KeptAlive) and event.ttl == 0 and state.held is not None:
        asked = AskGrant(state.ttl)
        return replace(state, lease_id=0, pending=asked), asked
    held = state.held
    state, command = claimer.step(state, event, now, chance)
    if isinstance(event, Granted) and held is not None and state.wanted is not None:
        put = Put(format_subnet_name(held.subnet), encode_attributes(state.wanted), state.lease_id)
        renewed = replace(held, attributes=state.wanted, lease_id=state.lease_id)
        command = AskCommit(Transaction((), (put,)), renewed)
        state = replace(state, pending=command)
    return state, command


claims_whatever_is_there = _without(lambda g, t: _claims(t) and _is_subnet(g, Field.CREATE_REVISION))
claims_under_any_config = _without(lambda g, t: g.name == CONFIG)
claims_what_another_holds = _without(lambda g, t: _claims(t) and g.name.startswith(HELD))
claims_while_frozen = _without(lambda g, t: g.name == FROZEN)
rewrites_any_life_of_the_key = _without(lambda g, t: _rewrites(t) and _is_subnet(g, Field.CREATE_REVISION))
rewrites_on_any_grant = _without(lambda g, t: _rewrites(t) and _is_subnet(g, Field.LEASE_ID))
rewrites_blindly = _without(lambda g, t: _rewrites(t) and g.name.startswith(SUBNETS))
takes_any_hold = _without(lambda g, t: _rewrites(t) and g.name.startswith(HELD))
releases_any_life_of_the_key = _without(lambda g, t: _deletes(t) and _is_subnet(g, Field.CREATE_REVISION))
releases_on_any_grant = _without(lambda g, t: _deletes(t) and _is_subnet(g, Field.LEASE_ID))
releases_blindly = _without(lambda g, t: _deletes(t))


def trusts_a_lost_answer(
    state: KeeperState, event: Event, now: float, chance: float
) -> tuple[KeeperState, Command | None]:
    """What could not be answered did not happen."""
    return claimer.step(replace(state, commit_outcome_unknown=False), event, now, chance)


def decides_on_old_news(
    state: KeeperState, event: Event, now: float, chance: float
) -> tuple[KeeperState, Command | None]:
    """Of its own writes, too, it thinks to be told at once."""
    return claimer.step(replace(state, need_revision=0), event, now, chance)


def writes_what_no_one_can_read(
    state: KeeperState, event: Event, now: float, chance: float
) -> tuple[KeeperState, Command | None]:
    state, command = claimer.step(state, event, now, chance)
    if isinstance(command, AskCommit):
        asked = command.transaction
        actions = tuple(replace(a, value=b"{}") if isinstance(a, Put) else a for a in asked.actions)
        command = replace(command, transaction=replace(asked, actions=actions))
        state = replace(state, pending=command)
    return state, command


def never_looks_again(
    state: KeeperState, event: Event, now: float, chance: float
) -> tuple[KeeperState, Command | None]:
    """What it is told in time must do."""
    state, command = claimer.step(state, event, now, chance)
    return (replace(state, pending=None), None) if isinstance(command, RefreshView) else (state, command)


def knows_every_life(
    state: KeeperState, event: Event, now: float, chance: float
) -> tuple[KeeperState, Command | None]:
    """A record under its name is its own, whichever life wrote it."""
    return claimer.step(replace(state, has_held=False), event, now, chance)
