"""What can happen next in a world.

What is left out, and why nothing is lost by it:
- A node that stands still (SIGSTOP, suspend, a partition) is a node that takes no action while time goes on.
- Between two ticks anything can happen in any order, so a pause before a retry is no time at all.
- A grant is made when it is asked for: any later would only move its end further away, and nobody else sees it.
- Losing a question that changes nothing (asking for a grant, a snapshot) is the same as asking later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial

from overlayd.core.leases.admin import ReservationError, make_release, make_reservation
from overlayd.core.leases.codec import format_subnet_name
from overlayd.core.leases.keeper.state import AskCommit, AskGrant, AskKeepalive, Command, KeeperState, RefreshView
from overlayd.core.leases.store import CONFIG, FROZEN, SUBNETS, Delete, Put, Snapshot, Transaction
from overlayd.core.network.addresses import Subnet
from support.model import store as stores
from support.model.interning import InternTable
from support.model.renaming import IDS, OPERATOR, node_name
from support.model.store import AbstractStore
from support.model.world import Label, ModelNode, ModelWorld

FOREVER = 99
"""So many ticks are as many as one likes."""


class Transitions:
    def __init__(self, parts: InternTable) -> None:
        self.parts = parts
        self.scenario = parts.scenario
        self._asks = cache(self._operator_asks)
        self._crashed = cache(self._crash)
        self._changed = cache(self._change)
        self._turned = cache(self._turn)
        self._told = cache(self._tell)
        self._restored = cache(self._restore)
        self._configured = cache(self._configure)

    def initial(self) -> ModelWorld:
        scenario, parts = self.scenario, self.parts
        store, _ = stores.commit(AbstractStore(), Transaction((), (Put(CONFIG, scenario.configs[0].encode(), 0),)))
        for subnet, owner in scenario.reserved:
            desired = make_reservation(stores.snapshot(store), Subnet.parse(subnet), node_name(owner))
            store, _ = stores.commit(store, desired)
        lives = [(0, n) if scenario.twins else (n, 0) for n in range(scenario.nodes)]
        nodes = (ModelNode(KeeperState(node_name(n), str(life), scenario.ttl)) for n, life in lives)
        number = parts.stores.number(store)
        backup = number if scenario.goes_back else -1
        return ModelWorld(
            number, tuple(map(parts.nodes.number, nodes)), (), backup, parts.budgets.number(scenario.budget)
        )

    def successors(self, world: ModelWorld) -> Iterator[tuple[Label, ModelWorld]]:
        if not self.scenario.brisk:
            yield from self._moves(world)
            return
        for label, after in self._moves(world):
            for has_held in self._settled(after):
                yield label, has_held

    def _settled(self, world: ModelWorld) -> Iterator[ModelWorld]:
        """This world once every grant and keepalive that was asked for has been answered."""
        for place, number in enumerate(world.nodes):
            node = self.parts.nodes.values[number]
            if isinstance(node.keeper.pending, AskGrant | AskKeepalive):
                store = world.store
                if node.answer is None:
                    store, number = self.parts.answered(store, number)
                for after in self.parts.deliver(number, "answer"):
                    yield from self._settled(self._with(world._replace(store=store), place, after))
                return
        yield world

    def _moves(self, world: ModelWorld) -> Iterator[tuple[Label, ModelWorld]]:
        parts = self.parts
        budget = parts.budgets.values[world.budget]
        for place, number in enumerate(world.nodes):
            node = parts.nodes.values[number]
            pending = node.keeper.pending
            if pending is None or isinstance(pending, RefreshView):
                yield from self._news(world, place)
            elif node.answer is not None:
                for after in parts.deliver(number, "answer"):
                    yield ("gets the answer", place), self._with(world, place, after)
                if budget.ambiguous and budget.faults and not isinstance(pending, AskGrant):
                    for after in parts.deliver(number, "fail"):
                        yield ("loses the answer", place), self._with(world, place, after, "ambiguous", "faults")
            else:
                yield from self._request(world, place, pending)
            if budget.crash and budget.faults:
                after, lost = self._crashed(number)
                left = world._replace(ghosts=tuple(sorted((*world.ghosts, *lost))))
                yield ("crashes and starts again", place), self._with(left, place, after, "crash", "faults")
            if budget.rewrite:
                after = self._changed(number)
                yield ("has other attributes", place), self._with(world, place, after, "rewrite")
            if budget.unfit:
                yield (
                    ("has a host that is (un)fit", place),
                    self._with(world, place, self._turned(number), "unfit"),
                )
            if budget.lag and budget.faults and node.kept is None:
                after = self._told(number, world.store)
                told = self._with(world, place, after, "lag", "faults")
                yield ("is told the news, and does not look", place), told
        for place, ghost in enumerate(world.ghosts):
            store, _ = parts.process(world.store, ghost)
            rest = world.ghosts[:place] + world.ghosts[place + 1 :]
            yield ("a late request arrives", ghost), world._replace(store=store, ghosts=rest)
        yield from self._environment(world)

    def _news(self, world: ModelWorld, place: int) -> Iterator[tuple[Label, ModelWorld]]:
        number = world.nodes[place]
        node = self.parts.nodes.values[number]
        kind, seen = ("kept", -1) if node.kept is not None else ("news", world.store)
        for after in self.parts.deliver(number, kind, seen):
            yield ("looks at the store", place), self._with(world, place, after)
        if node.keeper.pending is None:
            for after in self.parts.deliver(number, "tick"):
                yield ("wakes up", place), self._with(world, place, after)

    def _request(self, world: ModelWorld, place: int, pending: Command) -> Iterator[tuple[Label, ModelWorld]]:
        parts, number = self.parts, world.nodes[place]
        budget = parts.budgets.values[world.budget]
        store, answered = parts.answered(world.store, number)
        done = self._with(world, place, answered)._replace(store=store)
        yield ("the request arrives of", place), done
        if not budget.faults:
            return
        also = tuple(sorted((*world.ghosts, parts.commands.number(pending))))
        if isinstance(pending, AskKeepalive) and budget.duplicate:
            spent = parts.spent(world.budget, "duplicate", "faults")
            yield ("the request arrives, twice, of", place), done._replace(ghosts=also, budget=spent)
        for after in parts.deliver(number, "fail"):
            if budget.lose:
                yield ("loses its request", place), self._with(world, place, after, "lose", "faults")
            if budget.linger:
                gone = self._with(world, place, after, "linger", "faults")._replace(ghosts=also)
                yield ("gives up its request, which is still under way", place), gone

    def _environment(self, world: ModelWorld) -> Iterator[tuple[Label, ModelWorld]]:
        parts = self.parts
        budget, store = parts.budgets.values[world.budget], parts.stores.values[world.store]
        if budget.ticks:
            left = world.budget if budget.ticks == FOREVER else parts.spent(world.budget, "ticks")
            older = tuple(map(parts.older, world.nodes))
            passed = ModelWorld(parts.aged(world.store), older, world.ghosts, world.backup, left)
            yield ("time passes", -1), passed
            if budget.slip and budget.faults:
                spent = parts.spent(left, "slip", "faults")
                for place, number in enumerate(world.nodes):
                    nodes = (*older[:place], number, *older[place + 1 :])
                    if nodes != older:
                        slipped = passed._replace(nodes=nodes, budget=spent)
                        yield ("time passes, but not on the clock of", place), slipped
        if budget.end:
            spent = parts.spent(world.budget, "end")
            for lived in store.grants:
                if lived.left == 0 or self.scenario.early_end:
                    ended = parts.ended(world.store, lived.lease_id)
                    yield ("the store ends lease", lived.lease_id), world._replace(store=ended, budget=spent)
        if budget.configure:
            nth = len(self.scenario.configs) - budget.configure
            after, spent = self._configured(world.store, nth), parts.spent(world.budget, "configure")
            yield ("config takes effect", nth), world._replace(store=after, budget=spent)
        if budget.overwrite:
            spent = parts.spent(world.budget, "overwrite")
            for record in store.records:
                if record.name.startswith(SUBNETS):
                    after = self._put(world.store, record.name, b"\xff")
                    yield (f"somebody overwrites {record.name}", -1), world._replace(store=after, budget=spent)
        if budget.misconfigure:
            after, spent = self._put(world.store, CONFIG, b"{"), parts.spent(world.budget, "misconfigure")
            yield ("a config that is not sound takes effect", -1), world._replace(store=after, budget=spent)
        if budget.reserve:
            spent = parts.spent(world.budget, "reserve")
            for what, command in self._asks(world.store):
                ghosts = tuple(sorted((*world.ghosts, command)))
                yield (f"an operator asks to {what}", -1), world._replace(ghosts=ghosts, budget=spent)
        if budget.restore:
            spent = parts.spent(world.budget, "restore")
            restored = world._replace(store=self._restored(world.backup), backup=-1, budget=spent)
            yield ("the store is restored from", -1), restored
            if world.backup != world.store:
                yield ("a backup is made of", -1), world._replace(backup=world.store)

    def _with(self, world: ModelWorld, place: int, node: int, *spends: str) -> ModelWorld:
        """This world with another node in this place; if that asks for a grant, it is made."""
        parts, store = self.parts, world.store
        asked = parts.nodes.values[node]
        if asked.answer is None and isinstance(asked.keeper.pending, AskGrant):
            names = self._lease_ids(world)
            lease_id = max(place * IDS, (names & (1 << (place + 1) * IDS) - 1).bit_length() - 1) + 1
            assert lease_id < (place + 1) * IDS
            store, node = parts.granted(store, node, lease_id)
        nodes = (*world.nodes[:place], node, *world.nodes[place + 1 :])
        budget = parts.spent(world.budget, *spends) if spends else world.budget
        return ModelWorld(store, nodes, world.ghosts, world.backup, budget)

    def _lease_ids(self, world: ModelWorld) -> int:
        parts = self.parts
        names = parts.stores.lease_ids[world.store]
        names |= parts.stores.lease_ids[world.backup] if world.backup >= 0 else 0
        for node in world.nodes:
            names |= parts.nodes.lease_ids[node]
        for ghost in world.ghosts:
            names |= parts.commands.lease_ids[ghost]
        return names

    # Each worked out once

    def _crash(self, number: int) -> tuple[int, tuple[int, ...]]:
        """The node's next life, and what its last one leaves under way."""
        node = self.parts.nodes.values[number]
        old = node.keeper
        previous = old.served.subnet if old.served is not None else old.previous
        new = KeeperState(old.node_id, str(int(old.incarnation) + 1), old.ttl, previous=previous)
        under_way = isinstance(old.pending, AskCommit | AskKeepalive) and node.answer is None
        lost = (self.parts.commands.number(old.pending),) if under_way and old.pending is not None else ()
        return self.parts.nodes.number(ModelNode(new, changed=node.changed, unfit=node.unfit)), lost

    def _change(self, number: int) -> int:
        node = self.parts.nodes.values[number]
        return self.parts.nodes.number(replace(node, changed=not node.changed))

    def _turn(self, number: int) -> int:
        node = self.parts.nodes.values[number]
        return self.parts.nodes.number(replace(node, unfit=not node.unfit))

    def _tell(self, number: int, store: int) -> int:
        node = self.parts.nodes.values[number]
        return self.parts.nodes.number(replace(node, kept=self.parts.view(store)))

    def _configure(self, store: int, nth: int) -> int:
        put = Put(CONFIG, self.scenario.configs[nth].encode(), 0)
        after, _ = stores.commit(self.parts.stores.values[store], Transaction((), (put,)))
        return self.parts.stores.number(after)

    def _put(self, store: int, name: str, value: bytes) -> int:
        after, _ = stores.commit(self.parts.stores.values[store], Transaction((), (Put(name, value, 0),)))
        return self.parts.stores.number(after)

    def _restore(self, backup: int) -> int:
        after = self.parts.stores.values[backup]
        after = replace(after, grants=tuple(replace(one, left=float(one.ttl)) for one in after.grants))
        if self.scenario.freeze:
            lease_id = OPERATOR * IDS + 1
            after = stores.grant(after, lease_id, self.scenario.ttl)
            after, _ = stores.commit(after, Transaction((), (Put(FROZEN, b"", lease_id),)))
        return self.parts.stores.number(after)

    def _operator_asks(self, number: int) -> tuple[tuple[str, int], ...]:
        """What an operator who sees the store now can ask for, by `overlayd leases`."""
        seen = stores.snapshot(self.parts.stores.values[number])
        asks: list[tuple[str, int]] = []
        for subnet in self.scenario.reservable:
            desired_states: list[tuple[str, Callable[[Snapshot, Subnet], Transaction]]] = [
                (f"reserve {subnet} for node {n}", partial(make_reservation, node_id=node_name(n)))
                for n in range(self.scenario.nodes)
            ]
            desired_states.append((f"release {subnet}", partial(make_release, force=False)))
            if self.scenario.force:
                desired_states.append((f"release {subnet} --force", partial(make_release, force=True)))
            if self.scenario.by_hand and _is_reserved(seen, subnet):
                desired_states.append((f"delete {subnet}", _delete))
            for what, make in desired_states:
                with suppress(ReservationError):
                    transaction = make(seen, Subnet.parse(subnet))
                    asks.append((what, self.parts.commands.number(AskCommit(transaction, None))))
        return tuple(asks)


def _is_reserved(seen: Snapshot, subnet: str) -> bool:
    name = format_subnet_name(Subnet.parse(subnet))
    return any(record.name == name and record.lease_id == 0 for record in seen.subnets)


def _delete(seen: Snapshot, subnet: Subnet) -> Transaction:
    return Transaction((), (Delete(format_subnet_name(subnet)),))
