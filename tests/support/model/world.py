"""A world: the store, the nodes, what is under way between them, and which faults may still happen.

Every part of a world is *interned*: equal parts are one small integer, and what a part becomes by an action is
worked out once.  So the keeper's step runs once for each thing that can happen to a node, and a world is a tuple
of integers.

`Model.successors` says what can happen next, `Model.canonical` gives all worlds that differ in names only one
form (see `naming`).

What is left out, and why nothing is lost by it:
- A node that stands still (SIGSTOP, suspend, a partition) is a node that takes no action while time goes on.
- Between two ticks anything can happen in any order, so a pause before a retry is no time at all.
- A grant is made when it is asked for: any later would only move its end further away, and nobody else sees it.
- Losing a question that changes nothing (asking for a grant, a snapshot) is the same as asking later.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Generic, NamedTuple, TypeVar

from overlayd.core import keeper
from overlayd.core.config import NetworkConfig, parse_config
from overlayd.core.inventory import ReservationError, make_release, make_reservation
from overlayd.core.keeper import (
    AskCommit,
    AskGrant,
    AskKeepalive,
    AskSighting,
    Belief,
    Command,
    Decided,
    Event,
    Failed,
    Granted,
    KeeperState,
    KeptAlive,
    Sighted,
    Sighting,
    Tick,
)
from overlayd.core.leases import LeaseBook, absorb_snapshot
from overlayd.core.model import Subnet
from overlayd.core.records import format_hold_name, format_subnet_name
from overlayd.core.store import CONFIG, FROZEN, Delete, Grant, Put, Snapshot, Transaction
from support.model import store as stores
from support.model.naming import (
    IDS,
    NODES,
    OPERATOR,
    SAME,
    Names,
    Perm,
    Renaming,
    attributes,
    names_in,
    node_name,
    rename,
)
from support.model.store import AbstractStore

TICK = 10.0
"""Seconds.  With a TTL of 30 or 40 s the keeper's own rules come out as whole ticks: a margin of one, and a
renewal due at every tick."""

Step = Callable[[KeeperState, Event, float, float], tuple[KeeperState, Command | None]]
T = TypeVar("T", bound=Hashable)


class Budget(NamedTuple):
    """How often each of these may still happen; all of them together `faults` times, where that is less."""

    faults: int = 0
    lose: int = 0
    """A request does not arrive."""
    ambiguous: int = 0
    """A request takes effect and its answer is lost."""
    linger: int = 0
    """The sender gives up a request that takes effect later."""
    duplicate: int = 0
    """A keepalive takes effect twice, the second time later."""
    crash: int = 0
    """A node forgets all but its identity, and starts again; what it had under way still is."""
    slip: int = 0
    """A node's clock stands still for one tick."""
    lag: int = 0
    """A node decides on what the store was some time ago, though it was told later."""
    end: int = 0
    """The store ends a grant whose time has come."""
    rewrite: int = 0
    """A node's attributes change."""
    configure: int = 0
    """The next config takes effect."""
    reserve: int = 0
    """An operator reserves a subnet for a node, or takes the reservation away."""
    restore: int = 0
    """The store is restored from the backup, claims are frozen."""
    ticks: int = 99
    """Time passes.  99: as long as it likes."""


@dataclass(frozen=True, slots=True)
class Node:
    """`answer` is on its way back; `age` is how long ago the outstanding request was sent, by this node's clock.
    All times in `keeper` are relative to now."""

    keeper: KeeperState
    answer: Event | None = None
    age: float = 0.0
    changed: bool = False
    kept: Sighting | None = None
    """A view of the store that this node was told of and has not looked at."""


@dataclass(frozen=True)
class Scenario:
    name: str
    configs: tuple[str, ...]
    budget: Budget
    ttl: int = 30
    nodes: int = NODES
    reserved: tuple[tuple[str, int], ...] = ()
    """Subnets reserved from the beginning, and for whom."""
    reservable: tuple[str, ...] = ()
    force: bool = False
    """Whether operators release what is in use."""
    by_hand: bool = False
    """Whether somebody deletes the keys of reservations with no care."""
    freeze: bool = True
    """Whether the operator who restores the store freezes claims, as the handbook says."""
    recorded: bool = True
    """Whether what a node holds must be in the store as well."""
    brisk: bool = False
    """Grants and keepalives are answered at once.  A node then believes more, and sooner, than it would if they
    took their time; and the worlds are fewer by far."""
    early_end: bool = False
    """The store may end a grant before its time."""
    idle_keepalive: bool = False
    """An old leader acknowledges keepalives that have no effect."""
    twins: bool = False
    """Two nodes have one identity."""


@dataclass(frozen=True)
class Rules:
    """The functions under test."""

    step: Step = keeper.step
    belief: Callable[[KeeperState, float], Belief] = keeper.belief


class World(NamedTuple):
    store: int
    nodes: tuple[int, ...]
    ghosts: tuple[int, ...]
    backup: int
    budget: Budget


Label = tuple[str, int]
"""What happens, and to whom (a node, a lease id)."""


class _Interned(Generic[T]):
    """Values by number, and which names each of them has."""

    def __init__(self) -> None:
        self.values: list[T] = []
        self.revisions: list[int] = []
        self.lease_ids: list[int] = []
        self._numbers: dict[T, int] = {}
        self._renamed: dict[tuple[int, int, int, Perm], int] = {}

    def number(self, value: T) -> int:
        found = self._numbers.get(value)
        if found is None:
            found = self._numbers[value] = len(self.values)
            names = Names()
            names_in(value, names)
            self.values.append(value)
            self.revisions.append(names.revisions)
            self.lease_ids.append(names.lease_ids)
        return found

    def renamed(self, number: int, revisions: int, lease_ids: int, perm: Perm = SAME) -> int:
        """The same with these names in the place of its own, in order, and then with the nodes permuted."""
        key = (number, revisions, lease_ids, perm)
        found = self._renamed.get(key)
        if found is None:
            by = Renaming(
                dict(zip(_bits(self.revisions[number]), _bits(revisions), strict=True)),
                {
                    old: perm[new // IDS] * IDS + new % IDS if new else 0
                    for old, new in zip(_bits(self.lease_ids[number]), _bits(lease_ids), strict=True)
                },
                perm,
            )
            found = self._renamed[key] = self.number(rename(self.values[number], by))
        return found


class Model:
    def __init__(self, scenario: Scenario, rules: Rules = Rules()) -> None:
        self.scenario = scenario
        self.rules = rules
        self.stores: _Interned[AbstractStore] = _Interned()
        self.nodes: _Interned[Node] = _Interned()
        self.commands: _Interned[Command] = _Interned()
        self._configs = [parse_config(text) for text in scenario.configs]
        self._sightings: dict[int, Sighting] = {}
        self._stepped: dict[tuple[int, str, int], tuple[int, ...]] = {}
        self._signatures: dict[tuple[int, int], int] = {}
        self._signature_numbers: dict[Node, int] = {}
        self._aged: dict[int, int] = {}
        self._older: dict[int, int] = {}
        self._swept: dict[tuple[int, int], int] = {}
        self._processed: dict[tuple[int, int], tuple[int, Event]] = {}
        self._done: dict[tuple[int, int], tuple[int, int]] = {}
        self._grants: dict[tuple[int, int, int], tuple[int, int]] = {}
        self._ends: dict[tuple[int, int], int] = {}
        self._holding: dict[int, Subnet | None] = {}
        self._attached: dict[tuple[int, int], bool] = {}
        self._steady = not scenario.budget.lag and not scenario.budget.restore
        self._asks: dict[int, tuple[tuple[str, int], ...]] = {}
        self._permutations: dict[tuple[int, ...], list[Perm]] = {}

    # The beginning

    def initial(self) -> World:
        scenario = self.scenario
        store, _ = stores.commit(AbstractStore(), Transaction((), (Put(CONFIG, scenario.configs[0].encode(), 0),)))
        for subnet, owner in scenario.reserved:
            wish = make_reservation(stores.snapshot(store), Subnet.parse(subnet), node_name(owner))
            store, _ = stores.commit(store, wish)
        nodes = tuple(
            self.nodes.number(
                Node(
                    KeeperState(
                        node_name(0 if scenario.twins else n), str(n if scenario.twins else 0), scenario.ttl
                    )
                )
            )
            for n in range(scenario.nodes)
        )
        number = self.stores.number(store)
        backup = number if scenario.budget.restore else -1
        return self.canonical(World(number, nodes, (), backup, scenario.budget))

    # What can happen

    def successors(self, world: World) -> Iterator[tuple[Label, World]]:
        if not self.scenario.brisk:
            yield from self._moves(world)
            return
        for label, after in self._moves(world):
            for settled in self._settled(after):
                yield label, settled

    def _settled(self, world: World) -> Iterator[World]:
        """This world once every grant and keepalive that was asked for has been answered."""
        for place, number in enumerate(world.nodes):
            node = self.nodes.values[number]
            if isinstance(node.keeper.pending, AskGrant | AskKeepalive):
                store = world.store
                if node.answer is None:
                    store, number = self._answered(store, number)
                for after in self._deliver(number, "answer"):
                    yield from self._settled(self._with(world._replace(store=store), place, after))
                return
        yield world

    def _moves(self, world: World) -> Iterator[tuple[Label, World]]:
        budget = world.budget
        for place, number in enumerate(world.nodes):
            node = self.nodes.values[number]
            pending = node.keeper.pending
            if pending is None or isinstance(pending, AskSighting):
                yield from self._news(world, place)
            elif node.answer is not None:
                for after in self._deliver(number, "answer"):
                    yield ("gets the answer", place), self._with(world, place, after)
                if budget.ambiguous and budget.faults and not isinstance(pending, AskGrant):
                    for after in self._deliver(number, "fail"):
                        yield ("loses the answer", place), self._with(world, place, after, ("ambiguous",))
            else:
                yield from self._request(world, place, pending)
            if budget.crash and budget.faults:
                yield self._crash(world, place)
            if budget.rewrite:
                after = self.nodes.number(replace(node, changed=not node.changed))
                yield ("has other attributes", place), self._with(world, place, after, ("rewrite",), fault=False)
            if budget.lag and budget.faults and node.kept is None:
                after = self.nodes.number(replace(node, kept=self._view(world.store)))
                yield ("is told the news, and does not look", place), self._with(world, place, after, ("lag",))
        for place, ghost in enumerate(world.ghosts):
            store, _ = self._process(world.store, ghost)
            rest = world.ghosts[:place] + world.ghosts[place + 1 :]
            yield ("a late request arrives", ghost), world._replace(store=store, ghosts=rest)
        yield from self._environment(world)

    def _news(self, world: World, place: int) -> Iterator[tuple[Label, World]]:
        number = world.nodes[place]
        node = self.nodes.values[number]
        kind = "kept" if node.kept is not None else "news"
        for after in self._deliver(number, kind, -1 if kind == "kept" else world.store):
            yield ("looks at the store", place), self._with(world, place, after)
        if node.keeper.pending is None:
            for after in self._deliver(number, "tick"):
                yield ("wakes up", place), self._with(world, place, after)

    def _request(self, world: World, place: int, pending: Command) -> Iterator[tuple[Label, World]]:
        number, budget = world.nodes[place], world.budget
        store, answered = self._answered(world.store, number)
        done = self._with(world, place, answered)._replace(store=store)
        yield ("the request arrives of", place), done
        if not budget.faults:
            return
        command = self.commands.number(pending)
        if isinstance(pending, AskKeepalive) and budget.duplicate:
            ghosts = tuple(sorted((*world.ghosts, command)))
            spent = _spend(budget, ("duplicate",))
            yield ("the request arrives, twice, of", place), done._replace(ghosts=ghosts, budget=spent)
        for kind in ("lose", "linger"):
            if getattr(budget, kind):
                ghosts = tuple(sorted((*world.ghosts, command))) if kind == "linger" else world.ghosts
                for after in self._deliver(number, "fail"):
                    label = (
                        "gives up its request, which is still under way"
                        if kind == "linger"
                        else "loses its request"
                    )
                    yield (label, place), self._with(world, place, after, (kind,))._replace(ghosts=ghosts)

    def _crash(self, world: World, place: int) -> tuple[Label, World]:
        node = self.nodes.values[world.nodes[place]]
        old = node.keeper
        served = old.served
        lives = str(int(old.incarnation) + 1)
        new = KeeperState(old.node_id, lives, old.ttl, previous=served.subnet if served else old.previous)
        ghosts = world.ghosts
        if isinstance(old.pending, AskCommit | AskKeepalive) and node.answer is None:
            ghosts = tuple(sorted((*ghosts, self.commands.number(old.pending))))
        after = self.nodes.number(Node(new, changed=node.changed))
        return ("crashes and starts again", place), self._with(world, place, after, ("crash",))._replace(
            ghosts=ghosts
        )

    def _environment(self, world: World) -> Iterator[tuple[Label, World]]:
        budget, store = world.budget, self.stores.values[world.store]
        if budget.ticks:
            left = budget if budget.ticks == 99 else budget._replace(ticks=budget.ticks - 1)
            older = tuple(map(self._grow_older, world.nodes))
            passed = World(self._age(world.store), older, world.ghosts, world.backup, left)
            yield ("time passes", -1), passed
            if budget.slip and budget.faults:
                for place, number in enumerate(world.nodes):
                    nodes = (*older[:place], number, *older[place + 1 :])
                    if nodes != older:
                        spent = _spend(left, ("slip",))
                        yield (
                            ("time passes, but not on the clock of", place),
                            passed._replace(nodes=nodes, budget=spent),
                        )
        if budget.end:
            for lived in store.grants:
                if lived.left == 0 or self.scenario.early_end:
                    ended = self._ended(world.store, lived.lease_id)
                    yield (
                        ("the store ends lease", lived.lease_id),
                        world._replace(store=ended, budget=budget._replace(end=budget.end - 1)),
                    )
        if budget.configure:
            nth = len(self._configs) - budget.configure
            after, _ = stores.commit(
                store, Transaction((), (Put(CONFIG, self.scenario.configs[nth].encode(), 0),))
            )
            yield (
                ("config takes effect", nth),
                world._replace(
                    store=self.stores.number(after), budget=budget._replace(configure=budget.configure - 1)
                ),
            )
        if budget.reserve:
            for what, command in self._operator_asks(world.store):
                ghosts = tuple(sorted((*world.ghosts, command)))
                yield (
                    (f"an operator asks to {what}", -1),
                    world._replace(ghosts=ghosts, budget=budget._replace(reserve=budget.reserve - 1)),
                )
        if budget.restore:
            after = self.stores.values[world.backup]
            after = replace(after, grants=tuple(replace(one, left=float(one.ttl)) for one in after.grants))
            if self.scenario.freeze:
                lease_id = OPERATOR * IDS + 1
                after = stores.grant(after, lease_id, self.scenario.ttl)
                after, _ = stores.commit(after, Transaction((), (Put(FROZEN, b"", lease_id),)))
            yield (
                ("the store is restored from", -1),
                world._replace(
                    store=self.stores.number(after), backup=-1, budget=budget._replace(restore=budget.restore - 1)
                ),
            )
            if world.backup != world.store:
                yield ("a backup is made of", -1), world._replace(backup=world.store)

    def _operator_asks(self, number: int) -> tuple[tuple[str, int], ...]:
        """What an operator who sees the store now can ask for, by `overlayd leases`."""
        found = self._asks.get(number)
        if found is None:
            seen = stores.snapshot(self.stores.values[number])
            asks: list[tuple[str, int]] = []
            for subnet in self.scenario.reservable:
                wishes: list[tuple[str, Callable[[Snapshot, Subnet], Transaction]]] = [
                    (f"reserve {subnet} for node {n}", partial(make_reservation, node_id=node_name(n)))
                    for n in range(self.scenario.nodes)
                ]
                wishes.append((f"release {subnet}", partial(make_release, force=False)))
                if self.scenario.force:
                    wishes.append((f"release {subnet} --force", partial(make_release, force=True)))
                if self.scenario.by_hand and _is_reserved(seen, subnet):
                    wishes.append((f"delete {subnet}", _delete))
                for what, make in wishes:
                    with suppress(ReservationError):
                        transaction = make(seen, Subnet.parse(subnet))
                        asks.append((what, self.commands.number(AskCommit(transaction, None))))
            found = self._asks[number] = tuple(asks)
        return found

    # The parts, each worked out once

    def _with(
        self, world: World, place: int, node: int, spends: tuple[str, ...] = (), fault: bool = True
    ) -> World:
        store = world.store
        asked = self.nodes.values[node]
        if isinstance(asked.keeper.pending, AskGrant) and asked.answer is None:
            names = self._lease_ids(world)
            lease_id = max(place * IDS, (names & (1 << (place + 1) * IDS) - 1).bit_length() - 1) + 1
            assert lease_id < (place + 1) * IDS
            store, node = self._granted(store, node, lease_id)
        nodes = (*world.nodes[:place], node, *world.nodes[place + 1 :])
        budget = _spend(world.budget, spends, fault) if spends else world.budget
        return World(store, nodes, world.ghosts, world.backup, budget)

    def _deliver(self, number: int, kind: str, seen: int = -1) -> tuple[int, ...]:
        """What the node may be after this event, one for each outcome of chance that makes a difference.

        `seen` is the store at which it looks."""
        key = (number, kind, seen)
        found = self._stepped.get(key)
        if found is None:
            node = self.nodes.values[number]
            event = self._event(node, kind, seen)
            afters: dict[int, None] = {}
            for chance in (0.0, 0.5):
                state, _ = self.rules.step(node.keeper, event, 0.0, chance)
                after = Node(
                    plain(state, steady=self._steady),
                    None,
                    0.0,
                    node.changed,
                    None if kind == "kept" else node.kept,
                )
                afters[self.nodes.number(after)] = None
            found = self._stepped[key] = tuple(afters)
        return found

    def _event(self, node: Node, kind: str, seen: int) -> Event:
        answer = node.answer
        match kind:
            case "tick":
                return Tick()
            case "fail":
                return Failed("lost")
            case "answer" if isinstance(answer, Granted | KeptAlive):
                return replace(answer, sent_at=-node.age)
            case "answer" if answer is not None:
                return answer
            case _:
                view = node.kept or self._view(seen)
                known = node.keeper.sighting
                if not self._steady and known is not None and view.revision < known.revision:
                    view = replace(view, returns=1)
                return Sighted(view, attributes(_own(node), int(node.keeper.incarnation), node.changed))

    def _answered(self, store: int, number: int) -> tuple[int, int]:
        """The store, and the node with the answer on its way, after its request has arrived."""
        key = (store, number)
        found = self._done.get(key)
        if found is None:
            node = self.nodes.values[number]
            assert node.keeper.pending is not None
            after, answer = self._process(store, self.commands.number(node.keeper.pending))
            found = self._done[key] = (after, self.nodes.number(replace(node, answer=answer)))
        return found

    def _granted(self, store: int, number: int, lease_id: int) -> tuple[int, int]:
        key = (store, number, lease_id)
        found = self._grants.get(key)
        if found is None:
            after = stores.grant(self.stores.values[store], lease_id, self.scenario.ttl)
            answer = Granted(Grant(lease_id, self.scenario.ttl), 0.0)
            node = replace(self.nodes.values[number], answer=answer)
            found = self._grants[key] = (self.stores.number(after), self.nodes.number(node))
        return found

    def _ended(self, store: int, lease_id: int) -> int:
        key = (store, lease_id)
        found = self._ends.get(key)
        if found is None:
            found = self._ends[key] = self.stores.number(stores.end(self.stores.values[store], lease_id))
        return found

    def _process(self, store: int, command: int) -> tuple[int, Event]:
        key = (store, command)
        found = self._processed.get(key)
        if found is None:
            before, asked = self.stores.values[store], self.commands.values[command]
            match asked:
                case AskKeepalive(lease_id=lease_id):
                    after, ttl = stores.keepalive(before, lease_id)
                    after = before if self.scenario.idle_keepalive else after
                    event: Event = KeptAlive(ttl, 0.0)
                case AskCommit(transaction=transaction):
                    after, outcome = stores.commit(before, transaction)
                    event = Decided(outcome) if outcome is not None else Failed("no such lease")
                case AskGrant() | AskSighting():
                    raise AssertionError(asked)
            found = self._processed[key] = (self.stores.number(after), event)
        return found

    def _view(self, number: int) -> Sighting:
        """What a node that sees the whole store now decides on."""
        if number not in self._sightings:
            book = absorb_snapshot(LeaseBook(), stores.snapshot(self.stores.values[number]), 0)
            config = book.config
            assert config is not None
            self._sightings[number] = Sighting(
                book.revision,
                config.mod_revision,
                self._config(config.value),
                book.leases,
                book.taken,
                book.holds,
                0,
                book.is_frozen,
            )
        return self._sightings[number]

    def _config(self, text: bytes) -> NetworkConfig:
        return self._configs[self.scenario.configs.index(text.decode())]

    def _age(self, number: int) -> int:
        found = self._aged.get(number)
        if found is None:
            found = self._aged[number] = self.stores.number(stores.age(self.stores.values[number], TICK))
        return found

    def _grow_older(self, number: int) -> int:
        found = self._older.get(number)
        if found is None:
            node = self.nodes.values[number]
            state = node.keeper
            state = replace(state, until=max(0.0, state.until - TICK), renew_at=max(0.0, state.renew_at - TICK))
            waits = isinstance(state.pending, AskGrant | AskKeepalive)
            age = min(node.age + TICK, float(state.ttl)) if waits else 0.0
            found = self._older[number] = self.nodes.number(replace(node, keeper=state, age=age))
        return found

    # One form for all worlds that differ in names only

    def _lease_ids(self, world: World) -> int:
        names = self.stores.lease_ids[world.store] | (
            self.stores.lease_ids[world.backup] if world.backup >= 0 else 0
        )
        for node in world.nodes:
            names |= self.nodes.lease_ids[node]
        for ghost in world.ghosts:
            names |= self.commands.lease_ids[ghost]
        return names

    def canonical(self, world: World) -> World:
        world = self._compacted(self._without_orphans(world))
        if self.scenario.twins:
            return world
        signatures = [self._signature(place, node) for place, node in enumerate(world.nodes)]
        perms = self._perms(tuple(signatures))
        return (
            min(self._permuted(world, perm) for perm in perms)
            if len(perms) > 1
            else self._permuted(world, perms[0])
        )

    def _without_orphans(self, world: World) -> World:
        """No one can tell whether a grant exists that nothing refers to."""
        store = self.stores.values[world.store]
        if not store.grants:
            return world
        named = self.stores.lease_ids[self._swept_of(world.store, 0)]
        for node in world.nodes:
            named |= self.nodes.lease_ids[node]
        for ghost in world.ghosts:
            named |= self.commands.lease_ids[ghost]
        if self.stores.lease_ids[world.store] & ~named:
            return world._replace(store=self._swept_of(world.store, named))
        return world

    def _swept_of(self, number: int, named: int) -> int:
        key = (number, named & self.stores.lease_ids[number])
        found = self._swept.get(key)
        if found is None:
            store = self.stores.values[number]
            grants = tuple(one for one in store.grants if named >> one.lease_id & 1)
            found = self._swept[key] = self.stores.number(replace(store, grants=grants))
        return found

    def _compacted(self, world: World) -> World:
        stores_, nodes, commands = self.stores, self.nodes, self.commands
        revisions = stores_.revisions[world.store] | 1
        lease_ids = stores_.lease_ids[world.store] | 1
        if world.backup >= 0:
            revisions |= stores_.revisions[world.backup]
            lease_ids |= stores_.lease_ids[world.backup]
        for node in world.nodes:
            revisions |= nodes.revisions[node]
            lease_ids |= nodes.lease_ids[node]
        for ghost in world.ghosts:
            revisions |= commands.revisions[ghost]
            lease_ids |= commands.lease_ids[ghost]
        if self.scenario.budget.restore:  # a store that went back gives numbers out again that nodes remember
            revisions |= (1 << revisions.bit_length()) - 1
        dense = _dense(lease_ids)
        if not revisions & (revisions + 1) and dense == lease_ids:
            return world

        def moved(kind: _Interned[T], number: int) -> int:
            old, ids = kind.revisions[number], kind.lease_ids[number]
            return kind.renamed(number, _ranked(old, revisions), _ranked_ids(ids, lease_ids))

        return World(
            moved(stores_, world.store),
            tuple(moved(nodes, node) for node in world.nodes),
            tuple(sorted(moved(commands, ghost) for ghost in world.ghosts)),
            moved(stores_, world.backup) if world.backup >= 0 else -1,
            world.budget,
        )

    def _signature(self, place: int, number: int) -> int:
        """The same for two nodes if they differ at most in who is who."""
        key = (place, number)
        found = self._signatures.get(key)
        if found is None:
            perm = (*(int(other != place) for other in range(NODES)), OPERATOR)
            ids = {i: perm[i // IDS] * IDS + i % IDS if i else 0 for i in _bits(self.nodes.lease_ids[number])}
            revisions = {r: r for r in _bits(self.nodes.revisions[number])}
            plain = rename(self.nodes.values[number], Renaming(revisions, ids, perm))
            found = self._signature_numbers.setdefault(plain, len(self._signature_numbers))
            self._signatures[key] = found
        return found

    def _perms(self, signatures: tuple[int, ...]) -> list[Perm]:
        """The orders of the nodes in which their signatures rise."""
        found = self._permutations.get(signatures)
        if found is None:
            rising = sorted(signatures)
            rest = SAME[len(signatures) :]
            found = self._permutations[signatures] = [
                (*perm, *rest)
                for perm in itertools.permutations(range(len(signatures)))
                if all(rising[new] == signatures[old] for old, new in enumerate(perm))
            ]
        return found

    def _permuted(self, world: World, perm: Perm) -> World:
        if perm == SAME:
            return world

        def moved(kind: _Interned[T], number: int) -> int:
            return kind.renamed(number, kind.revisions[number], kind.lease_ids[number], perm)

        nodes = [0] * len(world.nodes)
        for old, number in enumerate(world.nodes):
            nodes[perm[old]] = moved(self.nodes, number)
        return World(
            moved(self.stores, world.store),
            tuple(nodes),
            tuple(sorted(moved(self.commands, ghost) for ghost in world.ghosts)),
            moved(self.stores, world.backup) if world.backup >= 0 else -1,
            world.budget,
        )

    def room(self, world: World) -> int:
        """How many nodes can have a subnet."""
        config = self.stores.values[world.store].find(CONFIG)
        assert config is not None
        return self._config(config.value).capacity

    # What must be true

    def find_violation(self, world: World) -> str | None:
        held = [(place, subnet) for place, number in enumerate(world.nodes) if (subnet := self._held(number))]
        for (place, subnet), (other, theirs) in itertools.combinations(held, 2):
            if subnet.overlaps(theirs):
                return f"node {place} holds {subnet} and node {other} holds {theirs}"
        for place, subnet in held:
            if self.scenario.recorded and not self._is_recorded(world.store, world.nodes[place]):
                return f"node {place} holds {subnet}, and its record in the store does not say so"
        return None

    def _held(self, number: int) -> Subnet | None:
        if number not in self._holding:
            state = self.nodes.values[number].keeper
            held = self.rules.belief(state, 0.0) is Belief.HELD
            self._holding[number] = state.held.subnet if held and state.held is not None else None
        return self._holding[number]

    def _is_recorded(self, store: int, node: int) -> bool:
        key = (store, node)
        found = self._attached.get(key)
        if found is None:
            found = self._attached[key] = is_recorded(self.stores.values[store], self.nodes.values[node].keeper)
        return found


def is_recorded(store: AbstractStore, state: KeeperState) -> bool:
    """Whether what this node believes to hold is on its living grant in the store: the record itself, or, of a
    reservation, the hold."""
    assert state.held is not None
    record, hold = (store.find(name(state.held.subnet)) for name in (format_subnet_name, format_hold_name))
    if record is None or record.create_revision != state.held.create_revision:
        return False
    shown = record if record.lease_id else hold
    return shown is not None and shown.lease_id == state.lease_id and store.has_grant(state.lease_id)


def _is_reserved(seen: Snapshot, subnet: str) -> bool:
    name = format_subnet_name(Subnet.parse(subnet))
    return any(record.name == name and record.lease_id == 0 for record in seen.subnets)


def _delete(seen: Snapshot, subnet: Subnet) -> Transaction:
    return Transaction((), (Delete(format_subnet_name(subnet)),))


def plain(state: KeeperState, *, steady: bool) -> KeeperState:
    """The state without what makes no difference to any later step, its times in whole ticks.

    `steady`: what a node is told of the store never gets older.
    """
    sighting, need, held = state.sighting, state.need_revision, state.held
    if sighting is not None:
        if need <= sighting.revision:
            need = 0 if steady else need
        if steady and held is not None and held.mod_revision <= sighting.revision:
            held = replace(held, mod_revision=held.create_revision)
        leases = tuple(
            lease
            if lease.attributes.node_id == state.node_id
            else replace(lease, mod_revision=lease.create_revision, lease_id=0)
            for lease in sighting.leases
        )
        holds = tuple(
            hold if hold.node_id == state.node_id else replace(hold, create_revision=0, mod_revision=0, lease_id=0)
            for hold in sighting.holds
        )
        revision = 0 if steady else sighting.revision
        sighting = replace(sighting, revision=revision, leases=leases, holds=holds, returns=0)
    return replace(
        state,
        until=max(0.0, state.until) if state.lease_id else 0.0,
        renew_at=max(0.0, math.ceil(state.renew_at / TICK) * TICK) if state.lease_id else 0.0,
        failures=0,
        retry_at=0.0,
        complaint="",
        lost_to="",
        misfit="",
        waits_for=None,
        held=held,
        need_revision=need,
        sighting=sighting,
    )


def _own(node: Node) -> int:
    return int(node.keeper.node_id[4:])


def _spend(budget: Budget, kinds: tuple[str, ...], fault: bool = True) -> Budget:
    left = {kind: getattr(budget, kind) - 1 for kind in kinds}
    return budget._replace(**left, faults=budget.faults - fault)


@cache
def _bits(mask: int) -> tuple[int, ...]:
    return tuple(bit for bit in range(mask.bit_length()) if mask >> bit & 1)


@cache
def _ranked(mask: int, among: int) -> int:
    """Each bit of `mask`, moved to its rank among the bits of `among`."""
    return sum(1 << (among & (1 << bit) - 1).bit_count() for bit in _bits(mask))


@cache
def _ranked_ids(mask: int, among: int) -> int:
    return sum(
        1 << bit // IDS * IDS + (among >> bit // IDS * IDS & (1 << bit % IDS) - 1 | 1 if bit else 0).bit_count()
        for bit in _bits(mask)
    )


@cache
def _dense(mask: int) -> int:
    return _ranked_ids(mask, mask)
