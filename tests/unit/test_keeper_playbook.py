"""The LeaseKeeper as a play: events in, commands out.  Read from the top, it tells the life of a lease.

`Play` stands for the store and the clock: `look` shows the keeper the store as it is now, `answer` does what the
keeper asked for and tells it the outcome.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from overlayd.core.leases.admin import make_reservation
from overlayd.core.leases.claimer import ClaimRequest
from overlayd.core.leases.keeper.claimer import step, wake_at
from overlayd.core.leases.keeper.decisions import RULES
from overlayd.core.leases.keeper.state import (
    AskCommit,
    AskGrant,
    AskKeepalive,
    Command,
    CommandFailed,
    CommitResult,
    Event,
    Granted,
    Held,
    KeeperState,
    KeptAlive,
    Lost,
    Missing,
    RefreshView,
    StoreViewed,
    Tick,
    Unclaimed,
    to_view,
)
from overlayd.core.leases.lease import Attributes
from overlayd.core.leases.records import RecordBook, absorb_snapshot
from overlayd.core.leases.store import CONFIG, FROZEN, Delete, Grant, Put, Transaction
from overlayd.core.leases.tenure import Belief, Waiting
from overlayd.core.network.addresses import Subnet
from overlayd.core.network.config import parse_config
from support.model import store as abstract
from support.model.store import AbstractStore

TTL = 60
ONE_SUBNET = b'{"Network":"10.244.0.0/16","SubnetMin":"10.244.1.0","SubnetMax":"10.244.1.0"}'
HALF_OF_IT = ONE_SUBNET.replace(b"{", b'{"SubnetLen":25,', 1)
TWO_SUBNETS = ONE_SUBNET.replace(b'SubnetMax":"10.244.1.0', b'SubnetMax":"10.244.2.0')
KEY, OTHER_KEY = "subnets/10.244.1.0-24", "subnets/10.244.2.0-24"
HOLD = "overlayd/held/10.244.1.0-24"
THEIRS = b'{"PublicIP":"10.99.0.9","Overlayd":{"NodeID":"other","NodeName":"","Incarnation":"x"}}'


class Play:
    """One keeper, `me`, on a store of its own.  The clock starts at 1000 s."""

    def __init__(self, config: bytes = ONE_SUBNET) -> None:
        self.now = 1000.0
        self.store = AbstractStore()
        self.put(CONFIG, config)
        self.config = config
        self.may_claim = True
        self.start()

    def start(self, life: str = "life1") -> None:
        """The daemon starts, and knows nothing but who it is."""
        self.me = KeeperState("me", life, TTL)
        self.public_ip = "10.99.0.1"

    @property
    def wanted(self) -> Attributes:
        me = self.me
        return Attributes((IPv4Address(self.public_ip),), node_id=me.node_id, incarnation=me.incarnation)

    # What others do to the store

    def put(self, name: str, value: bytes, lease_id: int = 0) -> None:
        self.store, _ = abstract.commit(self.store, Transaction((), (Put(name, value, lease_id),)))

    def delete(self, name: str) -> None:
        self.store, _ = abstract.commit(self.store, Transaction((), (Delete(name),)))

    # What the keeper is told

    def tell(self, event: Event) -> Command | None:
        self.me, command = step(self.me, event, self.now, 0.0)
        return command

    def look(self) -> Command | None:
        """News of the store, which is the config in force unless it can't be read."""
        return self.tell(self._view())

    def _view(self) -> StoreViewed:
        book = absorb_snapshot(RecordBook(), abstract.snapshot(self.store), asked_at=0)
        assert book.config is not None
        if book.config.value.startswith(b'{"'):
            self.in_force = book.config
        config = parse_config(self.in_force.value)
        request = ClaimRequest(config, self.in_force, self.wanted, self.may_claim)
        return StoreViewed(to_view(book, request), request.attributes)

    def answer(self) -> Command | None:
        """The store does what was asked for, and says so."""
        match self.me.pending:
            case AskGrant(ttl=ttl):
                lease_id = len(self.store.grants) + 7
                self.store = abstract.grant(self.store, lease_id, ttl)
                return self.tell(Granted(Grant(lease_id, ttl), self.now))
            case AskKeepalive(lease_id=lease_id):
                self.store, ttl = abstract.keepalive(self.store, lease_id)
                return self.tell(KeptAlive(ttl, self.now))
            case AskCommit(transaction=transaction):
                self.store, outcome = abstract.commit(self.store, transaction)
                assert outcome is not None
                return self.tell(CommitResult(outcome))
            case RefreshView():
                return self.look()
        raise AssertionError("nothing was asked for")

    def settle(self) -> None:
        """Answer until nothing is asked for."""
        self.look()
        while self.me.pending is not None:
            self.answer()

    def wait(self, seconds: float) -> Command | None:
        """Time passes; what is due becomes due."""
        self.now += seconds
        return self.tell(Tick())

    def end_grant(self) -> None:
        """The store ends our grant, and what is on it."""
        self.store = abstract.end(self.store, self.me.lease_id)

    # What is seen of it

    def belief(self) -> Belief:
        return self.me.tenure.belief(self.now)

    def names(self) -> dict[str, int]:
        """The keys under `subnets/`, and the grant that each is on."""
        return {
            record.name: record.lease_id for record in self.store.records if record.name.startswith("subnets/")
        }


def written(command: Command | None) -> set[str]:
    """The keys that a commit writes or deletes."""
    assert isinstance(command, AskCommit)
    return {action.name for action in command.transaction.actions}


def deletes(command: Command | None) -> bool:
    assert isinstance(command, AskCommit)
    return all(isinstance(action, Delete) for action in command.transaction.actions)


def settled(config: bytes = ONE_SUBNET) -> Play:
    play = Play(config)
    play.settle()
    assert play.belief() is Belief.HELD
    return play


# The story


def test_a_first_claim_asks_for_a_grant_and_then_writes_the_key() -> None:
    play = Play()
    assert play.look() == AskGrant(TTL)
    assert play.belief() is Belief.UNCLAIMED
    claim = play.answer()
    assert written(claim) == {KEY}
    assert play.answer() == RefreshView(), "until it has seen its own write it decides nothing"
    assert isinstance(play.me.phase, Held)
    assert play.answer() is None
    assert play.belief() is Belief.HELD
    assert play.names() == {KEY: play.me.lease_id}


def test_belief_ends_a_margin_before_the_ttl_and_counts_from_the_question() -> None:
    play = Play()
    play.look()
    play.now += 5  # the answer takes its time
    play.tell(Granted(Grant(7, TTL), play.now - 5))
    assert play.me.until == 1000.0 + TTL - 10


def test_a_grant_is_kept_alive_when_it_is_due() -> None:
    play = settled()
    assert wake_at(play.me, play.now) == play.now + TTL / 6
    assert play.wait(TTL / 6 - 1) is None
    assert play.wait(1) == AskKeepalive(play.me.lease_id)
    assert play.answer() is None
    assert play.me.until == play.now + TTL - 10


def test_without_an_answer_belief_ends_and_forwarding_goes_on() -> None:
    play = settled()
    play.now += TTL
    play.tell(CommandFailed("no answer"))
    assert play.belief() is Belief.FENCED
    assert play.me.served is not None


def test_belief_that_ended_comes_back_by_writing_the_record_again() -> None:
    play = settled()
    assert play.wait(TTL - 5) == AskKeepalive(play.me.lease_id)
    play.answer()
    assert isinstance(play.me.phase, Missing), "a keepalive alone shows nothing"
    play.settle()
    assert play.belief() is Belief.HELD


def test_a_record_that_is_gone_is_claimed_again_on_a_new_grant() -> None:
    play = settled()
    play.end_grant()
    play.look()
    assert isinstance(play.me.phase, Missing)
    assert play.me.pending == AskKeepalive(play.me.lease_id), "is the grant alive?"
    assert play.answer() == RefreshView()
    assert play.answer() == AskGrant(TTL)
    assert written(play.answer()) == {KEY}


def test_a_subnet_that_another_took_is_lost() -> None:
    play = settled()
    play.end_grant()
    play.put(KEY, THEIRS, 0)
    play.look()
    assert play.me.phase == Lost("other")
    assert play.belief() is Belief.LOST


def test_a_config_without_room_for_the_subnet_loses_it() -> None:
    play = settled()
    play.put(CONFIG, HALF_OF_IT)
    command = play.look()
    assert play.me.phase == Lost(config_mismatch="is not a /25")
    assert written(command) == {KEY}
    assert deletes(command), "it is given back before another is claimed"
    play.answer()
    play.settle()
    assert play.belief() is Belief.HELD
    assert all(name.endswith("-25") for name in play.names())


def test_a_restart_adopts_what_the_life_before_left() -> None:
    play = settled()
    play.start("life2")
    assert play.look() == AskGrant(TTL)
    assert written(play.answer()) == {KEY}
    play.answer()
    assert play.names() == {KEY: play.me.lease_id}


def test_a_refused_write_pauses_and_looks_again() -> None:
    play = Play()
    play.look()
    claim = play.answer()
    assert written(claim) == {KEY}
    play.put(KEY, THEIRS)  # somebody was faster
    assert play.answer() is None
    assert play.wait(0.1) is None
    assert play.wait(0.5) == RefreshView()
    assert play.answer() is None
    assert play.me.waits_for is Waiting.SUBNET


def test_a_write_whose_answer_is_lost_is_looked_for() -> None:
    play = Play()
    play.look()
    claim = play.answer()
    assert isinstance(claim, AskCommit)
    play.store, _ = abstract.commit(play.store, claim.transaction)
    play.tell(CommandFailed("no answer"))
    assert play.wait(1) == RefreshView()
    play.settle()
    assert play.belief() is Belief.HELD
    assert play.names() == {KEY: play.me.lease_id}


def test_a_reservation_is_held_by_a_second_key() -> None:
    play = Play()
    reserve = make_reservation(abstract.snapshot(play.store), Subnet.parse("10.244.1.0/24"), "me")
    play.store, _ = abstract.commit(play.store, reserve)
    play.look()
    assert written(play.answer()) == {KEY, HOLD}
    play.answer()
    assert play.names() == {KEY: 0}, "it stays a reservation"
    assert play.belief() is Belief.HELD


@pytest.mark.parametrize("on_grant", [True, False])
def test_a_record_overwritten_by_hand_is_written_again(on_grant: bool) -> None:
    play = settled(TWO_SUBNETS)
    ours = play.names()
    [key] = ours
    play.put(key, b"oops", play.me.lease_id if on_grant else 0)
    assert written(play.look()) == {key}
    play.answer()
    play.settle()
    assert (play.names(), play.belief()) == (ours, Belief.HELD)


def test_a_record_overwritten_while_belief_was_over_is_written_again() -> None:
    play = settled(TWO_SUBNETS)
    [key] = play.names()
    play.put(key, b"oops")
    play.end_grant()
    play.now += TTL
    assert play.tell(Tick()) == AskKeepalive(play.me.lease_id)
    play.answer()
    play.settle()
    assert play.names() == {key: play.me.lease_id}
    assert play.belief() is Belief.HELD


def test_a_record_overwritten_on_a_strangers_grant_is_left_alone() -> None:
    play = settled(TWO_SUBNETS)
    [key] = play.names()
    play.store = abstract.grant(play.store, 50, TTL)
    play.put(key, b"oops", 50)
    play.settle()
    assert set(play.names()) == {KEY, OTHER_KEY}


def test_an_unfit_host_adopts_and_renews_and_claims_nothing_new() -> None:
    play = settled(TWO_SUBNETS)
    ours = play.names()
    [key] = ours
    play.start("life2")
    play.may_claim = False
    play.settle()
    assert play.belief() is Belief.HELD
    assert play.names() == {key: play.me.lease_id}
    assert play.wait(TTL / 6) == AskKeepalive(play.me.lease_id)
    play.answer()
    play.delete(key)
    play.settle()
    assert play.names() == {key: play.me.lease_id}, "what is in use may be claimed again"
    play.put(key, THEIRS)
    play.settle()
    assert (play.belief(), play.me.waits_for) == (Belief.LOST, Waiting.HOST)


def test_an_unfit_host_gives_nothing_back_that_may_fit_later() -> None:
    play = settled()
    play.put(CONFIG, HALF_OF_IT)
    play.start("life2")
    play.may_claim = False
    play.settle()
    assert play.me.waits_for is Waiting.HOST
    assert set(play.names()) == {KEY}


# The table


def test_a_pause_goes_before_all() -> None:
    play = settled()
    play.now += TTL / 6
    play.tell(CommandFailed("no answer"))
    assert play.look() is None, "though the grant is due"
    assert play.wait(1) == AskKeepalive(play.me.lease_id)


def test_the_grant_goes_before_looking() -> None:
    play = settled()
    play.public_ip = "10.99.0.2"
    play.look()
    play.now += TTL / 6
    play.tell(CommandFailed("no answer"))
    assert play.me.commit_outcome_unknown
    play.now += 1
    assert play.tell(Tick()) == AskKeepalive(play.me.lease_id)
    assert play.answer() == RefreshView()


def test_tidying_goes_before_rewriting() -> None:
    play = settled(TWO_SUBNETS)
    [key] = play.names()
    spare = ({KEY, OTHER_KEY} - {key}).pop()
    play.put(spare, THEIRS.replace(b"other", b"me").replace(b'"x"', b'"life1"'), play.me.lease_id)
    play.public_ip = "10.99.0.2"
    command = play.look()
    assert written(command) == {spare}
    assert deletes(command)
    play.answer()
    assert written(play.answer()) == {key}, "and then its record says what it should"


def test_another_life_of_this_node_is_yielded_to() -> None:
    play = settled(TWO_SUBNETS)
    [key] = play.names()
    play.put(key, THEIRS.replace(b"other", b"me").replace(b'"x"', b'"life9"'))
    assert play.look() is None
    assert play.me.waits_for is Waiting.OTHER_SELF
    assert play.belief() is Belief.LOST


def test_frozen_claims_wait_for_the_thaw_even_to_adopt() -> None:
    play = settled()
    play.start("life2")
    play.put(FROZEN, b"")
    play.settle()
    assert play.me.waits_for is Waiting.THAW
    assert isinstance(play.me.phase, Unclaimed)


def test_adopting_goes_before_waiting_for_the_config() -> None:
    play = settled()
    play.start("life2")
    play.put(CONFIG, b"{")
    play.settle()
    assert play.belief() is Belief.HELD
    play.delete(KEY)
    play.settle()
    assert play.me.waits_for is Waiting.CONFIG


def test_waiting_for_the_host_asks_for_no_grant() -> None:
    play = Play()
    play.may_claim = False
    assert play.look() is None
    assert play.me.waits_for is Waiting.HOST
    assert not play.me.lease_id


def test_the_table_in_the_docs_is_the_one_that_is_applied() -> None:
    text = (Path(__file__).parents[2] / "docs/leases.md").read_text()
    rows = re.findall(r"^\| \d+ \| (.*?) \| (.*?) \|$", text, re.MULTILINE)
    assert rows == [(rule.when, rule.then) for rule in RULES]
    assert len(set(rows)) == len(RULES)
