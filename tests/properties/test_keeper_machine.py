"""Several keepers, step by step, on the abstract store: Hypothesis says who does what, what is lost, and when.

The same machine with one guard of the protocol left out must fail.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import ClassVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from overlayd.core.leases.claimer import ClaimRequest
from overlayd.core.leases.keeper.state import (
    AskCommit,
    AskGrant,
    AskKeepalive,
    CommandFailed,
    CommitResult,
    Event,
    Granted,
    KeeperState,
    KeptAlive,
    RefreshView,
    StoreViewed,
    Tick,
    belief,
    to_view,
)
from overlayd.core.leases.lease import Attributes
from overlayd.core.leases.records import RecordBook, absorb_snapshot
from overlayd.core.leases.store import CONFIG, Grant, Put, Transaction
from overlayd.core.leases.tenure import Belief
from overlayd.core.network.config import parse_config
from support.model import sabotage
from support.model import store as abstract
from support.model.store import AbstractStore
from support.model.world import Rules, Step

NODES, TTL = 3, 30
CONFIGS = [
    b'{"Network":"10.244.0.0/22","SubnetLen":24,"SubnetMin":"10.244.1.0","SubnetMax":"10.244.2.0"}',
    b'{"Network":"10.244.0.0/22","SubnetLen":25,"SubnetMin":"10.244.1.0","SubnetMax":"10.244.1.128"}',
]
"""Two subnets for three nodes, of one length or the other, so that they overlap."""

who = st.integers(0, NODES - 1)
chances = st.sampled_from([0.0, 0.4, 0.9])


class Keepers(RuleBasedStateMachine):
    """Time stands still but for `wait`; a request is under way until `answer` or `lose` decides its fate."""

    under_test: ClassVar[Rules] = Rules()

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.lives = 0
        self.granted = 0
        self.store, _ = abstract.commit(AbstractStore(), Transaction((), (Put(CONFIG, CONFIGS[0], 0),)))
        self.late: list[Transaction] = []
        self.keepers = [self._born(number) for number in range(NODES)]
        self.sent_at = [0.0] * NODES

    def _born(self, number: int) -> KeeperState:
        self.lives += 1
        return KeeperState(f"id{number}", f"life{self.lives}", TTL)

    def _keeper_input(self, number: int) -> StoreViewed:
        snapshot = abstract.snapshot(self.store)
        records = absorb_snapshot(RecordBook(), snapshot, asked_at=0)
        assert records.config is not None
        config = parse_config(records.config.value)
        state = self.keepers[number]
        wanted = Attributes(
            (IPv4Address(f"10.99.0.{number + 1}"),), "vxlan", "{}", None, state.node_id, "", state.incarnation
        )
        return StoreViewed(to_view(records, ClaimRequest(config, records.config, wanted)), wanted)

    def _tell(self, number: int, event: Event, chance: float) -> None:
        self.keepers[number], command = self.under_test.step(self.keepers[number], event, self.now, chance)
        if command is not None:
            self.sent_at[number] = self.now

    @rule(number=who, chance=chances)
    def look(self, number: int, chance: float) -> None:
        """The watch brings news, or nothing."""
        if self.keepers[number].pending is None:
            self._tell(number, self._keeper_input(number), chance)

    @rule(number=who, chance=chances)
    def tick(self, number: int, chance: float) -> None:
        if self.keepers[number].pending is None:
            self._tell(number, Tick(), chance)

    @rule(number=who, chance=chances, heard=st.booleans())
    def answer(self, number: int, chance: float, heard: bool) -> None:
        """The store does what is asked; its answer arrives, or not."""
        event: Event
        match self.keepers[number].pending:
            case None:
                return
            case AskGrant(ttl=ttl):
                self.granted += 1
                self.store = abstract.grant(self.store, self.granted, ttl)
                event = Granted(Grant(self.granted, ttl), self.sent_at[number])
            case AskKeepalive(lease_id=lease_id):
                self.store, ttl = abstract.keepalive(self.store, lease_id)
                event = KeptAlive(ttl, self.sent_at[number])
            case RefreshView():
                event = self._keeper_input(number)
            case AskCommit(transaction=transaction):
                self.store, outcome = abstract.commit(self.store, transaction)
                event = CommandFailed("no such grant") if outcome is None else CommitResult(outcome)
        self._tell(number, event if heard else CommandFailed("lost"), chance)

    @rule(numbers=st.lists(who, min_size=2, max_size=12), chance=chances)
    def go_well(self, numbers: list[int], chance: float) -> None:
        """A while in which nothing is lost, and only the order is left to chance."""
        for number in numbers:
            self.answer(number, chance, heard=True)
            self.look(number, chance)

    @rule(number=who, chance=chances, long=st.integers(1, 5))
    def have_a_time_alone(self, number: int, chance: float, long: int) -> None:
        """The others hear nothing meanwhile."""
        self.go_well([number] * long, chance)

    @rule(number=who, chance=chances, late=st.booleans())
    def lose(self, number: int, chance: float, late: bool) -> None:
        """The request is lost, or arrives much later, when nobody waits for it any more."""
        pending = self.keepers[number].pending
        if pending is None:
            return
        if late and isinstance(pending, AskCommit):
            self.late.append(pending.transaction)
        self._tell(number, CommandFailed("lost"), chance)

    @rule()
    def arrive(self) -> None:
        if self.late:
            self.store, _ = abstract.commit(self.store, self.late.pop(0))

    @rule(number=who, seldom=st.integers(0, 3))
    def crash(self, number: int, seldom: int) -> None:
        """All but its identity is forgotten; what was under way may still arrive."""
        if seldom:
            return
        pending = self.keepers[number].pending
        if isinstance(pending, AskCommit):
            self.late.append(pending.transaction)
        self.keepers[number] = self._born(number)

    @rule(seconds=st.sampled_from([1, 5, 15, 40]))
    def wait(self, seconds: int) -> None:
        """Time passes, and what the store may end it ends."""
        self.now += seconds
        self.store = abstract.age(self.store, seconds)
        for grant in self.store.grants:
            if grant.left <= 0:
                self.store = abstract.end(self.store, grant.lease_id)

    @rule(config=st.sampled_from(CONFIGS), seldom=st.integers(0, 3), first=who, chance=chances)
    def configure(self, config: bytes, seldom: int, first: int, chance: float) -> None:
        """One of the nodes hears of it first, and acts before the others do."""
        if not seldom:
            self.store, _ = abstract.commit(self.store, Transaction((), (Put(CONFIG, config, 0),)))
            self.have_a_time_alone(first, chance, long=5)

    @invariant()
    def no_subnet_is_held_twice(self) -> None:
        held = [state.held for state in self.keepers if belief(state, self.now) is Belief.HELD]
        for place, one in enumerate(held):
            for other in held[place + 1 :]:
                assert one is not None
                assert other is not None
                assert not one.subnet.overlaps(other.subnet), f"another holds {other.subnet}"


Keepers.TestCase.settings = settings(max_examples=300, stateful_step_count=60, deadline=None)
TestKeepers = Keepers.TestCase

NEEDED = (
    sabotage.claims_whatever_is_there,
    sabotage.claims_under_any_config,
)


@pytest.mark.parametrize("sabotaged", NEEDED, ids=("the key's absence", "the config"))
def test_what_a_guard_prevents_is_found(sabotaged: Step) -> None:
    class Careless(Keepers):
        under_test = Rules(step=sabotaged)

    once = settings(
        Keepers.TestCase.settings, max_examples=1000, derandomize=True, database=None, phases=[Phase.generate]
    )
    with pytest.raises(AssertionError, match="holds"):
        run_state_machine_as_test(Careless, settings=once)
