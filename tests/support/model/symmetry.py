"""One form for all worlds that differ in names only, or in what makes no difference.

Names are revisions (only their order counts), ids of leases, and which node is called what: see `naming`.  What
makes no difference in a part is told in `essence`; what makes none between the parts is left out here:
- a grant that nothing refers to;
- a request under way that can't change anything any more;
- how high the store's revision is above all that anyone remembers;
- how long a grant has to live, if the store is to end no more of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import cache

from overlayd.core.leases.keeper.state import AskCommit
from support.model.interning import Interned, InternTable, T
from support.model.reduction import (
    IN_VAIN,
    careful,
    is_in_vain,
    is_refused,
    plain,
    plain_budget,
    plain_ghost,
)
from support.model.renaming import (
    IDS,
    NODES,
    OPERATOR,
    SAME,
    Names,
    Perm,
    Renaming,
    bits,
    names_in,
    ranked,
    ranked_ids,
    rename,
)
from support.model.world import ModelNode, ModelScenario, ModelWorld

Plain = Callable[[ModelNode, ModelScenario], ModelNode]


class SymmetryReduction:
    def __init__(self, parts: InternTable, plain: Plain = plain) -> None:
        self.parts = parts
        self._plain_of = plain
        self._looks_ahead = plain is not careful and not parts.scenario.goes_back
        self._signature_numbers: dict[ModelNode, int] = {}
        self._plain = cache(self._plain_node)
        self._ghost = cache(self._plain_ghost)
        self._budget = cache(self._plain_budget)
        self._effective = cache(self._effective_node)
        self._is_in_vain = cache(self._find_in_vain)
        self._swept = cache(self._sweep)
        self._lasting = cache(self._make_last)
        self._lowered = cache(self._lower)
        self._remembered = cache(self._revisions_remembered)
        self._signature = cache(self._sign)
        self._perms = cache(self._rising)

    def canonical(self, world: ModelWorld) -> ModelWorld:
        world = self._without_effect(world)
        world = self._compacted(self._without_orphans(world))
        if self.parts.scenario.twins:
            return world
        perms = self._perms(tuple(map(self._signature, range(len(world.nodes)), world.nodes)))
        if len(perms) == 1:
            return self._permuted(world, perms[0])
        return min(self._permuted(world, perm) for perm in perms)

    # What makes no difference

    def _without_effect(self, world: ModelWorld) -> ModelWorld:
        store, nodes, ghosts, backup, budget = world
        nodes = tuple(map(self._plain, nodes))
        ghosts = tuple(sorted(map(self._ghost, ghosts)))
        budget = self._budget(budget)
        if self._looks_ahead:
            nodes = tuple([self._effective(store, node) for node in nodes])
            if ghosts:
                ghosts = tuple([ghost for ghost in ghosts if not self._is_in_vain(store, ghost)])
            if not self.parts.budgets.values[budget].end:
                store = self._lasting(store)
        return ModelWorld(store, nodes, ghosts, backup, budget)

    def _plain_node(self, number: int) -> int:
        return self.parts.nodes.number(self._plain_of(self.parts.nodes.values[number], self.parts.scenario))

    def _plain_ghost(self, number: int) -> int:
        return self.parts.commands.number(plain_ghost(self.parts.commands.values[number]))

    def _plain_budget(self, number: int) -> int:
        return self.parts.budgets.number(plain_budget(self.parts.budgets.values[number]))

    def _effective_node(self, store: int, number: int) -> int:
        """The node, its request replaced if that can only be refused."""
        node = self.parts.nodes.values[number]
        asked = node.keeper.pending
        if node.answer is not None or not isinstance(asked, AskCommit):
            return number
        if not is_refused(self.parts.stores.values[store], asked):
            return number
        return self.parts.nodes.number(replace(node, keeper=replace(node.keeper, pending=IN_VAIN)))

    def _find_in_vain(self, store: int, command: int) -> bool:
        return is_in_vain(self.parts.stores.values[store], self.parts.commands.values[command])

    def _make_last(self, number: int) -> int:
        store = self.parts.stores.values[number]
        grants = tuple(replace(one, left=float(one.ttl)) for one in store.grants)
        return self.parts.stores.number(replace(store, grants=grants))

    def _without_orphans(self, world: ModelWorld) -> ModelWorld:
        """No one can tell whether a grant exists that nothing refers to."""
        parts = self.parts
        if not parts.stores.values[world.store].grants:
            return world
        bare = self._swept(world.store, 0)
        named = parts.stores.lease_ids[bare]
        for node in world.nodes:
            named |= parts.nodes.lease_ids[node]
        for ghost in world.ghosts:
            named |= parts.commands.lease_ids[ghost]
        there = parts.stores.lease_ids[world.store]
        return world._replace(store=self._swept(world.store, named & there)) if there & ~named else world

    def _sweep(self, number: int, named: int) -> int:
        """The store with these grants only."""
        store = self.parts.stores.values[number]
        grants = tuple(one for one in store.grants if named >> one.lease_id & 1)
        return self.parts.stores.number(replace(store, grants=grants))

    # Names

    def _compacted(self, world: ModelWorld) -> ModelWorld:
        parts = self.parts
        stores, nodes, commands = parts.stores, parts.nodes, parts.commands
        store = world.store
        revisions, lease_ids = 1, stores.lease_ids[store] | 1
        for node in world.nodes:
            revisions |= nodes.revisions[node]
            lease_ids |= nodes.lease_ids[node]
        for ghost in world.ghosts:
            revisions |= commands.revisions[ghost]
            lease_ids |= commands.lease_ids[ghost]
        if world.backup >= 0:
            revisions |= stores.revisions[world.backup]
            lease_ids |= stores.lease_ids[world.backup]
        if self._looks_ahead:
            revisions |= self._remembered(store)
            store = self._lowered(store, revisions.bit_length() - 1)
        else:
            revisions |= stores.revisions[store]
        if parts.scenario.goes_back:  # numbers are given out again that nodes remember
            revisions |= (1 << revisions.bit_length()) - 1
        if not revisions & (revisions + 1) and ranked_ids(lease_ids, lease_ids) == lease_ids:
            return world if store == world.store else world._replace(store=store)

        def moved(kind: Interned[T], number: int) -> int:
            old, ids = kind.revisions[number], kind.lease_ids[number]
            return kind.renamed(number, ranked(old, revisions), ranked_ids(ids, lease_ids), SAME)

        return ModelWorld(
            moved(stores, store),
            tuple([moved(nodes, node) for node in world.nodes]),
            tuple(sorted([moved(commands, ghost) for ghost in world.ghosts])),
            moved(stores, world.backup) if world.backup >= 0 else -1,
            world.budget,
        )

    def _revisions_remembered(self, store: int) -> int:
        """Those that the store's records name."""
        names = Names()
        names_in(self.parts.stores.values[store].records, names)
        return names.revisions

    def _lower(self, store: int, revision: int) -> int:
        return self.parts.stores.number(replace(self.parts.stores.values[store], revision=revision))

    def _sign(self, place: int, number: int) -> int:
        """The same for two nodes if they differ at most in who is who."""
        nodes = self.parts.nodes
        perm = (*(int(other != place) for other in range(NODES)), OPERATOR)
        ids = {i: perm[i // IDS] * IDS + i % IDS if i else 0 for i in bits(nodes.lease_ids[number])}
        revisions = {r: r for r in bits(nodes.revisions[number])}
        anyone = rename(nodes.values[number], Renaming(revisions, ids, perm))
        return self._signature_numbers.setdefault(anyone, len(self._signature_numbers))

    def _rising(self, signatures: tuple[int, ...]) -> list[Perm]:
        """The orders of the nodes in which their signatures rise."""
        rising = sorted(signatures)
        rest = SAME[len(signatures) :]
        return [
            (*perm, *rest)
            for perm in itertools.permutations(range(len(signatures)))
            if all(rising[new] == signatures[old] for old, new in enumerate(perm))
        ]

    def _permuted(self, world: ModelWorld, perm: Perm) -> ModelWorld:
        if perm == SAME:
            return world

        def moved(kind: Interned[T], number: int) -> int:
            return kind.renamed(number, kind.revisions[number], kind.lease_ids[number], perm)

        nodes = [0] * len(world.nodes)
        for old, number in enumerate(world.nodes):
            nodes[perm[old]] = moved(self.parts.nodes, number)
        return ModelWorld(
            moved(self.parts.stores, world.store),
            tuple(nodes),
            tuple(sorted([moved(self.parts.commands, ghost) for ghost in world.ghosts])),
            moved(self.parts.stores, world.backup) if world.backup >= 0 else -1,
            world.budget,
        )
