"""The parts that worlds are made of, each known by a small number, and what becomes of a part by an action.

Equal parts have one number, and what a part becomes is worked out once.  So the keeper's step runs once for each
thing that can happen to a node, however many worlds that node stands in.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from functools import cache
from typing import Generic, TypeVar

from overlayd.core.leases.book import StoredConfig
from overlayd.core.leases.claimer import ClaimRequest
from overlayd.core.leases.keeper.state import (
    AskCommit,
    AskGrant,
    AskKeepalive,
    Command,
    CommandFailed,
    CommitResult,
    Event,
    Granted,
    KeptAlive,
    RefreshView,
    StoreView,
    StoreViewed,
    Tick,
    to_view,
)
from overlayd.core.leases.lease import Attributes
from overlayd.core.leases.records import RecordBook, absorb_snapshot
from overlayd.core.leases.store import Grant
from overlayd.core.network.config import NetworkConfig, parse_config
from support.model import store as stores
from support.model.renaming import IDS, SAME, Names, Perm, Renaming, attributes, bits, names_in, rename
from support.model.store import AbstractStore
from support.model.world import TICK, Budget, ModelNode, ModelScenario, Rules

T = TypeVar("T", bound=Hashable)

NOBODY = Attributes(())


class Interned(Generic[T]):
    """Values by number, and which names each of them has."""

    def __init__(self) -> None:
        self.values: list[T] = []
        self.revisions: list[int] = []
        self.lease_ids: list[int] = []
        self.renamed = cache(self._renamed)
        self._numbers: dict[T, int] = {}

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

    def _renamed(self, number: int, revisions: int, lease_ids: int, perm: Perm = SAME) -> int:
        """The same with these names in the place of its own, in order, and then with the nodes permuted."""
        by = Renaming(
            dict(zip(bits(self.revisions[number]), bits(revisions), strict=True)),
            {
                old: perm[new // IDS] * IDS + new % IDS if new else 0
                for old, new in zip(bits(self.lease_ids[number]), bits(lease_ids), strict=True)
            },
            perm,
        )
        return self.number(rename(self.values[number], by))


class InternTable:
    """All functions take and give numbers, but for events and views."""

    def __init__(self, scenario: ModelScenario, rules: Rules) -> None:
        self.scenario = scenario
        self.rules = rules
        self.stores: Interned[AbstractStore] = Interned()
        self.nodes: Interned[ModelNode] = Interned()
        self.commands: Interned[Command] = Interned()
        self.budgets: Interned[Budget] = Interned()
        self._configs = {text.encode(): parse_config(text) for text in scenario.configs}
        self.deliver = cache(self._deliver)
        self.answered = cache(self._answered)
        self.granted = cache(self._granted)
        self.ended = cache(self._ended)
        self.process = cache(self._process)
        self.view = cache(self._view)
        self.aged = cache(self._aged)
        self.older = cache(self._older)
        self.spent = cache(self._spent)

    def config(self, store: int) -> NetworkConfig:
        """The one that is in force."""
        found = stores.snapshot(self.stores.values[store]).config
        assert found is not None
        return self._configs.get(found.value, next(iter(self._configs.values())))

    # A node

    def _deliver(self, number: int, kind: str, seen: int = -1) -> tuple[int, ...]:
        """What the node may be after this event, one for each outcome of chance that makes a difference.

        `seen` is the store at which it looks.  A pause before a retry is no time at all, and how long ago
        something was due is all the same."""
        node = self.nodes.values[number]
        event = self._event(node, kind, seen)
        kept = None if kind == "kept" else node.kept
        afters: dict[int, None] = {}
        for chance in (0.0, 0.5):
            state, _ = self.rules.step(node.keeper, event, 0.0, chance)
            until, renew_at = max(0.0, state.until), max(0.0, state.renew_at)
            state = replace(state, until=until, renew_at=renew_at, retry_at=0.0)
            afters[self.nodes.number(ModelNode(state, changed=node.changed, unfit=node.unfit, kept=kept))] = None
        return tuple(afters)

    def _event(self, node: ModelNode, kind: str, seen: int) -> Event:
        answer = node.answer
        match kind:
            case "tick":
                return Tick()
            case "fail":
                return CommandFailed("lost")
            case "answer" if isinstance(answer, Granted | KeptAlive):
                return replace(answer, sent_at=-node.age)
            case "answer" if answer is not None:
                return answer
            case _:
                view, known = node.kept or self.view(seen), node.keeper.store_view
                if known is not None:
                    went_back = self.scenario.goes_back and view.revision < known.revision
                    view = replace(view, returns=known.returns + went_back)
                view = replace(view, may_claim=not node.unfit)
                place = int(node.keeper.node_id[4:])
                return StoreViewed(view, attributes(place, int(node.keeper.incarnation), node.changed))

    def _older(self, number: int) -> int:
        """The node one tick later."""
        node = self.nodes.values[number]
        state = node.keeper
        state = replace(state, until=max(0.0, state.until - TICK), renew_at=max(0.0, state.renew_at - TICK))
        waits = isinstance(state.pending, AskGrant | AskKeepalive)
        age = min(node.age + TICK, float(state.ttl)) if waits else 0.0
        return self.nodes.number(replace(node, keeper=state, age=age))

    # The store

    def _view(self, number: int) -> StoreView:
        """What a node that sees the whole store now decides on."""
        book = absorb_snapshot(RecordBook(), stores.snapshot(self.stores.values[number]), 0)
        config = book.config
        assert config is not None
        if config.value in self._configs:
            return to_view(book, ClaimRequest(self._configs[config.value], config, NOBODY))
        # a config that is not sound: every node goes by the first one, as it was read then
        first = next(iter(self._configs))
        return to_view(book, ClaimRequest(self._configs[first], StoredConfig(first, 1), NOBODY))

    def _ended(self, store: int, lease_id: int) -> int:
        return self.stores.number(stores.end(self.stores.values[store], lease_id))

    def _aged(self, store: int) -> int:
        """The store one tick later."""
        return self.stores.number(stores.age(self.stores.values[store], TICK))

    # The store and a request

    def _process(self, store: int, command: int) -> tuple[int, Event]:
        """The store after a request, and its answer."""
        before, asked = self.stores.values[store], self.commands.values[command]
        match asked:
            case AskKeepalive(lease_id=lease_id):
                after, ttl = stores.keepalive(before, lease_id)
                after = before if self.scenario.idle_keepalive else after
                event: Event = KeptAlive(ttl, 0.0)
            case AskCommit(transaction=transaction):
                after, outcome = stores.commit(before, transaction)
                event = CommitResult(outcome) if outcome is not None else CommandFailed("no such lease")
            case AskGrant() | RefreshView():
                raise AssertionError(asked)
        return self.stores.number(after), event

    def _answered(self, store: int, number: int) -> tuple[int, int]:
        """The store, and the node with the answer on its way, after its request has arrived."""
        node = self.nodes.values[number]
        assert node.keeper.pending is not None
        after, answer = self.process(store, self.commands.number(node.keeper.pending))
        return after, self.nodes.number(replace(node, answer=answer))

    def _granted(self, store: int, number: int, lease_id: int) -> tuple[int, int]:
        """The store, and the node with the answer on its way, after it has been given a grant."""
        after = stores.grant(self.stores.values[store], lease_id, self.scenario.ttl)
        answer = Granted(Grant(lease_id, self.scenario.ttl), 0.0)
        return self.stores.number(after), self.nodes.number(replace(self.nodes.values[number], answer=answer))

    def _spent(self, budget: int, *kinds: str) -> int:
        """The budget after each of these has happened once more."""
        value = self.budgets.values[budget]
        return self.budgets.number(value._replace(**{kind: getattr(value, kind) - 1 for kind in kinds}))
