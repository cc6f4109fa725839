"""A trace as somebody would tell it: what happened, and what each node and the store made of it."""

from __future__ import annotations

from collections.abc import Iterator

from overlayd.core.leases.keeper.state import AskCommit, Command
from overlayd.core.leases.store import CONFIG, Delete
from overlayd.core.leases.tenure import Belief
from support.model.model import Model
from support.model.search import Found
from support.model.world import ModelNode, ModelWorld


def print_trace(model: Model, found: Found) -> str:
    """The trace, and what it ends in."""
    return "\n".join(_lines(model, found))


def describe(model: Model, world: ModelWorld) -> str:
    """One world, not how it came about."""
    return "\n".join(_changes(model, None, world))


def _lines(model: Model, found: Found) -> Iterator[str]:
    before = None
    for number, ((what, whom), world) in enumerate(found.trace, 1):
        yield f"{number:3}. {_sentence(what, whom)}"
        yield from (f"       {line}" for line in _changes(model, before, world))
        before = world
    yield f"  => {found.violation}"


def _sentence(what: str, whom: int) -> str:
    if whom < 0:
        return what
    if what.endswith("of"):
        return f"{what} node {whom}"
    if what.startswith(("the store ends", "config")):
        return f"{what} {whom}"
    return what if what.startswith("a late") else f"node {whom} {what}"


def _changes(model: Model, before: ModelWorld | None, after: ModelWorld) -> Iterator[str]:
    for place, number in enumerate(after.nodes):
        line = _node(model, model.parts.nodes.values[number])
        if before is None or line != _node(model, model.parts.nodes.values[before.nodes[place]]):
            yield f"node {place}: {line}"
    if before is None or _store(model, before) != _store(model, after):
        yield f"store: {_store(model, after)}"


def _node(model: Model, node: ModelNode) -> str:
    state = node.keeper
    believes = model.rules.belief(state, 0.0)
    subnet = f" {state.served.subnet}" if state.served is not None else ""
    until = f" for {state.until:g} s" if believes is Belief.HELD else ""
    asks = "" if state.pending is None else f", asks {_command(state.pending)}"
    answer = "" if node.answer is None else ", the answer is on its way"
    return f"{believes.value}{subnet}{until}{asks}{answer}"


def _command(command: Command) -> str:
    if not isinstance(command, AskCommit):
        return str(command)
    guards = " and ".join(f"{g.name} has {g.field.value} {g.equals}" for g in command.transaction.guards)
    actions = ", ".join(
        f"delete {action.name}" if isinstance(action, Delete) else f"put {action.name} on lease {action.lease_id}"
        for action in command.transaction.actions
    )
    return f"[{actions} if {guards or 'anything'}]"


def _store(model: Model, world: ModelWorld) -> str:
    store = model.parts.stores.values[world.store]
    records = (
        f"{r.name} (created {r.create_revision}, lease {r.lease_id})" for r in store.records if r.name != CONFIG
    )
    grants = (f"{one.lease_id} ({one.left:g} s)" for one in store.grants)
    return f"revision {store.revision}; {', '.join(records) or 'no records'}; leases {', '.join(grants) or 'none'}"
