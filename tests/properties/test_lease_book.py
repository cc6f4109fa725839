"""The lease book: any split, order or repetition of one history gives the same book, and one rule, against a slow
list, says which leases are served."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from overlayd.core.leases.book import NAMED, LeaseBook
from overlayd.core.leases.codec import RecordError, format_subnet_name, parse_lease
from overlayd.core.leases.lease import Attributes, Lease
from overlayd.core.leases.lease_record import LeaseRecord
from overlayd.core.leases.records import RecordBook, absorb_changes, absorb_snapshot
from overlayd.core.leases.store import CONFIG, Change, Changes, Deleted, Record, Snapshot
from overlayd.core.network.addresses import Subnet
from overlayd.core.network.config import NetworkConfig, parse_config
from overlayd.core.text.strict_json import SIZE_LIMIT
from support.strategies import junk_records, leases, nth_prefix, prefixes, record_of, subnets

CONFIGS = [
    parse_config('{"Network": "10.244.0.0/16"}'),
    parse_config('{"Network": "10.244.0.0/17", "EnableIPv6": true, "IPv6Network": "fd00:10:244::/48"}'),
    parse_config('{"EnableIPv4": false, "EnableIPv6": true, "IPv6Network": "fd00:10:244::/48"}'),
]
configs = st.sampled_from(CONFIGS)
values = leases().map(record_of).map(lambda record: record.value) | st.binary(max_size=4)
names = st.sampled_from([CONFIG, "subnets/10.244.1.0-24", "subnets/10.244.0.0-23", "subnets/junk"])


@st.composite
def histories(draw: st.DrawFn) -> list[Change]:
    """What happened to a few keys, one revision each."""
    history: list[Change] = []
    present: dict[str, Record] = {}
    for revision in range(1, draw(st.integers(1, 15)) + 1):
        name = draw(names)
        if name in present and draw(st.booleans()):
            del present[name]
            history.append(Deleted(name, revision))
            continue
        created = present[name].create_revision if name in present else revision
        present[name] = Record(name, draw(values), created, revision, draw(st.sampled_from([0, 7])))
        history.append(present[name])
    return history


def snapshot_at(history: Sequence[Change], revision: int) -> Snapshot:
    present: dict[str, Record] = {}
    for change in history[:revision]:
        present.pop(change.name, None)
        if isinstance(change, Record):
            present[change.name] = change
    config = present.pop(CONFIG, None)
    return Snapshot(revision, config, tuple(present.values()))


def present_state(records: RecordBook) -> dict[str, object]:
    """What the books say of the present."""
    book = records.book
    return {
        "revision": (records.revision, book.position),
        "config": book.config,
        "records": records.leases,
        "leases": book.leases,
        "taken": sorted(subnet.sort_key for subnet in book.taken),
        "in_sync": book.in_sync,
        "served": [book.served(config) for config in CONFIGS],
        "problems": [book.problems(config) for config in (*CONFIGS, None)],
    }


@settings(max_examples=300)
@given(st.data())
def test_any_split_order_or_repetition_gives_the_same_book(data: st.DataObject) -> None:
    history = data.draw(histories())
    end = len(history)
    revisions = st.integers(0, end)
    base = data.draw(revisions)
    cuts = sorted({base, end, *(cut for cut in data.draw(st.lists(revisions)) if cut > base)})
    enough: list[Snapshot | Changes] = [snapshot_at(history, base)]
    enough += [Changes(last, tuple(history[first:last])) for first, last in pairwise(cuts)]
    anything = st.one_of(
        revisions.map(lambda revision: snapshot_at(history, revision)),
        st.tuples(revisions, revisions).map(
            lambda ends: Changes(max(ends), tuple(history[min(ends) : max(ends)]))
        ),
        revisions.map(lambda revision: Changes(revision, tuple(history[max(0, revision - 1) : revision]))),
        revisions.map(lambda revision: Changes(revision, ())),
    )
    deliveries = data.draw(st.permutations(enough + data.draw(st.lists(anything, max_size=8))))

    book = RecordBook()
    for news in deliveries:
        if isinstance(news, Changes):
            book = absorb_changes(book, news)
        else:  # asked for at any time before it was answered, maybe long before
            asked_at = data.draw(st.integers(0, min(news.revision, book.revision)))
            book = absorb_snapshot(book, news, asked_at)

    told_at_once = absorb_snapshot(RecordBook(), snapshot_at(history, end), asked_at=0)
    assert present_state(book) == present_state(told_at_once)
    assert book.highest == end


@given(histories(), st.data())
def test_a_store_that_went_back_is_followed_and_named(history: list[Change], data: st.DataObject) -> None:
    end = len(history)
    book = absorb_snapshot(RecordBook(), snapshot_at(history, end), asked_at=0)
    restored = snapshot_at(history, data.draw(st.integers(0, end - 1)))
    after = absorb_snapshot(book, restored, asked_at=book.revision)
    fresh = absorb_snapshot(RecordBook(), restored, asked_at=0)
    assert (after.entries, after.revision, after.leases) == (fresh.entries, fresh.revision, fresh.leases)
    assert [problem.code for problem in after.book.problems(None)].count("store-went-back") == 1
    assert "store-went-back" not in [
        problem.code for problem in absorb_changes(after, Changes(end, ())).book.problems(None)
    ]


def test_a_value_that_differs_at_the_same_revision_is_believed() -> None:
    """A store that went back and forth again may have another value at a revision that we know."""
    lease = parse_lease(Record("subnets/10.244.1.0-24", b'{"PublicIP":"10.0.0.1"}', 5, 5, 7))
    book = absorb_snapshot(RecordBook(), Snapshot(9, None, (record_of(lease),)), asked_at=0)
    other = Record("subnets/10.244.1.0-24", b'{"PublicIP":"10.0.0.2"}', 5, 5, 7)
    assert absorb_snapshot(book, Snapshot(9, None, (other,)), asked_at=9).leases == (parse_lease(other),)


@given(st.lists(leases(), max_size=6))
def test_nothing_is_parsed_twice(written: list[LeaseRecord]) -> None:
    records = one_per_key(map_records(written))
    book = absorb_snapshot(RecordBook(), Snapshot(50, None, records), asked_at=0)
    copies = tuple(replace(record, value=bytes(bytearray(record.value))) for record in records)
    again = absorb_snapshot(book, Snapshot(60, None, copies), asked_at=50)
    assert all(again.entries[name] is entry for name, entry in book.entries.items())


# Which leases are served -----------------------------------------------------------------------------------


def map_records(written: Sequence[LeaseRecord]) -> list[Record]:
    return [record_of(lease) for lease in written]


def one_per_key(records: Sequence[Record]) -> tuple[Record, ...]:
    return tuple({record.name: record for record in records}.values())


def records_of(records: Sequence[Record]) -> RecordBook:
    return absorb_snapshot(RecordBook(), Snapshot(50, None, one_per_key(records)), asked_at=0)


def book_of(records: Sequence[Record]) -> LeaseBook:
    return records_of(records).book


def is_inside(subnet: Subnet, config: NetworkConfig) -> bool:
    networks = [span.network for span in config.ranges]
    return all(
        any(prefix.version == network.version and prefix.subnet_of(network) for network in networks)  # type: ignore[arg-type]
        for prefix in subnet.prefixes
    )


def served_slowly(written: Sequence[LeaseRecord], config: NetworkConfig) -> list[Lease]:
    """The rule as one would tell it: oldest first, each that is inside and overlaps none of those before."""
    served: list[Lease] = []
    for lease in sorted(
        written, key=lambda one: (one.create_revision, one.mod_revision, format_subnet_name(one.subnet))
    ):
        if is_inside(lease.subnet, config) and not any(lease.subnet.overlaps(one.subnet) for one in served):
            served.append(lease.lease)
    return served


def bare_leases(of: st.SearchStrategy[Subnet], newest: int) -> st.SearchStrategy[LeaseRecord]:
    """Leases of which only subnet and age matter."""
    who = Attributes((IPv4Address("10.0.0.1"),))
    ages = st.tuples(st.integers(1, newest), st.integers(0, 2))
    return st.builds(lambda subnet, age: LeaseRecord(subnet, who, age[0], sum(age), 7), of, ages)


near_and_far = bare_leases(
    subnets() | subnets(IPv4Network("10.240.0.0/12"), IPv6Network("fd00:10:240::/44")), newest=40
)


@st.composite
def rivals(draw: st.DrawFn) -> tuple[NetworkConfig, list[LeaseRecord]]:
    """Leases of few addresses and few revisions, at the end of the network: they overlap and tie in every way."""
    config = draw(configs)
    corners = [nth_prefix(span.network, span.network.max_prefixlen - 3, -1) for span in config.ranges]
    narrow = st.tuples(*map(prefixes, corners)).map(Subnet)
    return config, draw(st.lists(bare_leases(narrow, newest=4) | near_and_far, max_size=10))


@settings(max_examples=300)
@given(rivals())
def test_the_oldest_of_overlapping_leases_is_served(given_: tuple[NetworkConfig, list[LeaseRecord]]) -> None:
    config, written = given_
    records = records_of(map_records(written))
    assert list(records.book.served(config)) == served_slowly(records.leases, config)


@given(st.lists(near_and_far, max_size=10), configs)
def test_what_is_not_served_is_a_problem(written: list[LeaseRecord], config: NetworkConfig) -> None:
    book = book_of(map_records(written[:NAMED]))
    unserved = {lease.subnet for lease in book.leases} - {lease.subnet for lease in book.served(config)}
    problems = book.problems(config)
    assert len(problems) == len(unserved)
    for subnet in unserved:
        assert any(problem.text.startswith(f"lease {subnet} of ") for problem in problems)


@given(st.lists(near_and_far, max_size=8), st.lists(junk_records(), max_size=8), configs)
def test_a_bad_record_harms_nothing_but_itself(
    written: list[LeaseRecord], junk: list[Record], config: NetworkConfig
) -> None:
    good = one_per_key(map_records(written))
    bad = [record for record in junk if is_bad(record) and record.name not in {one.name for one in good}]
    alone, together = book_of(good), book_of([*bad, *good])
    assert together.leases == alone.leases
    assert together.served(config) == alone.served(config)
    assert set(together.taken) >= set(alone.taken)
    assert bool(together.problems(None)) == bool(bad)
    for problem in together.problems(config):
        assert str(problem).isprintable()
        assert len(str(problem)) < 500


def is_bad(record: Record) -> bool:
    try:
        parse_lease(record)
    except RecordError:
        return True
    return False


@given(st.lists(near_and_far, max_size=8), near_and_far, configs)
def test_a_younger_lease_takes_nothing_from_an_older_one(
    written: list[LeaseRecord], late: LeaseRecord, config: NetworkConfig
) -> None:
    late = replace(late, create_revision=45, mod_revision=45)
    if late.subnet not in {lease.subnet for lease in written}:
        before = book_of(map_records(written)).served(config)
        assert book_of(map_records([late, *written])).served(config)[: len(before)] == before


@given(st.lists(near_and_far, max_size=8), configs)
def test_peers_are_the_served_leases_of_the_others_but_for_reservations_that_were_left(
    written: list[LeaseRecord], config: NetworkConfig
) -> None:
    records = records_of(map_records(written))
    own = {lease.subnet for lease in written[:2]}
    peers = records.book.peers(config, lambda lease: lease.subnet in own)
    served = served_slowly(records.leases, config)
    leased = {lease.attributes.node_id for lease in served if not lease.is_reservation} - {""}
    assert [(peer.subnet, peer.attributes) for peer in peers] == [
        (lease.subnet, lease.attributes)
        for lease in served
        if lease.subnet not in own and not (lease.is_reservation and lease.attributes.node_id in leased)
    ]


def test_a_reservation_is_a_peer_unless_its_node_holds_another_subnet_and_not_this_one() -> None:
    value = b'{"PublicIP":"10.0.0.1","Overlayd":{"NodeID":"x","NodeName":"node1","Incarnation":"a1"}}'
    reservation = replace(lease_record("10.244.1.0-24", 1, value), lease_id=0)
    lease = lease_record("10.244.2.0-24", 2, value)
    hold = Record("overlayd/held/10.244.1.0-24", b'{"NodeID":"x","Incarnation":"a1"}', 3, 3, 7)

    def peers(*records: Record) -> list[str]:
        return [str(peer.subnet) for peer in book_of(list(records)).peers(CONFIGS[0], lambda _: False)]

    assert peers(reservation) == ["10.244.1.0/24"], "its node may be cut off from the store"
    assert peers(reservation, lease) == ["10.244.2.0/24"]
    assert peers(reservation, lease, hold) == ["10.244.1.0/24", "10.244.2.0/24"]


def lease_record(subnet: str, created: int, value: bytes = b'{"PublicIP":"10.0.0.1"}') -> Record:
    return Record(f"subnets/{subnet}", value, created, created, 7)


def test_each_kind_of_problem_is_named_with_its_remedy() -> None:
    book = book_of(
        [
            lease_record("10.244.1.0-24", 1),
            lease_record(
                "10.244.1.0-25", 2, b'{"PublicIP":"10.0.0.2","Overlayd":{"NodeID":"x","NodeName":"node2"}}'
            ),
            lease_record("10.245.1.0-24", 3),
            lease_record("10.244.3.0-24", 4, b"{"),
            lease_record("10.244.4.0-24", 5, b" " * (SIZE_LIMIT + 1)),
            lease_record("\x1b[2J", 6),
        ]
    )
    texts = {problem.code: problem.text for problem in book.problems(CONFIGS[0])}
    assert texts == {
        "key-unknown": "key 'subnets/\\x1b[2J' is not named like subnets/10.244.3.0-24",
        "lease-malformed": "lease 10.244.3.0/24 is not JSON: Expecting property name enclosed in double quotes"
        " at line 1, column 2",
        "lease-outside": "lease 10.245.1.0/24 of 10.0.0.1 is outside the network 10.244.0.0/16 and not served",
        "lease-overlap": "lease 10.244.1.0/25 of node2 overlaps the older lease 10.244.1.0/24 of 10.0.0.1"
        " and is not served",
        "lease-oversized": f"lease 10.244.4.0/24 has {SIZE_LIMIT + 1} bytes, at most {SIZE_LIMIT} are read",
    }
    assert all(problem.remedy for problem in book.problems(CONFIGS[0]))
    assert {str(subnet) for subnet in book.taken} >= {"10.244.3.0/24", "10.244.4.0/24"}


def test_a_config_is_no_lease_and_no_problem() -> None:
    book = absorb_snapshot(RecordBook(), Snapshot(3, Record(CONFIG, b"?", 2, 2, 0), ()), asked_at=0).book
    assert book.config is not None
    assert (book.leases, book.taken, book.problems(CONFIGS[0])) == ((), (), ())


def test_many_problems_of_one_kind_are_counted() -> None:
    book = book_of([lease_record(f"junk{number}", number) for number in range(1, 101)])
    problems = book.problems(None)
    assert len(problems) == NAMED + 1
    assert problems[-1].text == f"{100 - NAMED} more problems of this kind (key-unknown)"


def test_a_huge_value_is_not_kept() -> None:
    book = records_of([lease_record("10.244.4.0-24", 5, b"x" * 1_000_000)])
    change = book.entries["subnets/10.244.4.0-24"].change
    assert isinstance(change, Record)
    assert change.value == b""


def test_nothing_is_in_sync_before_the_first_snapshot() -> None:
    book = absorb_changes(RecordBook(), Changes(7, (lease_record("10.244.1.0-24", 7),)))
    assert not book.in_sync
    assert book.revision == 7
    assert absorb_snapshot(book, Snapshot(6, None, ()), asked_at=0).leases == book.leases
    assert absorb_snapshot(book, Snapshot(8, None, ()), asked_at=7).leases == ()


def test_old_news_after_a_snapshot_brings_nothing_back() -> None:
    record = lease_record("10.244.1.0-24", 3)
    book = absorb_snapshot(RecordBook(), Snapshot(6, None, ()), asked_at=0)
    assert absorb_changes(book, Changes(6, (record,))).leases == ()
    assert absorb_snapshot(book, Snapshot(4, None, (record,)), asked_at=2).leases == ()
