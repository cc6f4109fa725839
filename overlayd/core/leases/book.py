"""The book of leases: what the store holds, learned from snapshots and changes, in whatever pieces they come.

Per key the highest revision counts, and a deleted key is remembered as such; a snapshot is the whole truth as of
its revision, so it ends the memory of everything before, and what came after it stays.  Hence any split, order
or repetition of one history gives the same book, and nothing here depends on how the news came.

Which leases are served is one rule over the present leases, the same on every node: a lease outside the network
is not; where leases overlap, the one whose key was created first is, and the others are not.  So what the
backends get is disjoint.  A record that is no lease harms nothing but itself: it is named among the problems.

A book is a value: absorbing makes a new one.  A record is parsed once, when it comes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from types import MappingProxyType

from overlayd.core.leases.codec import (
    RecordError,
    parse_hold,
    parse_hold_name,
    parse_lease,
    parse_subnet_name,
)
from overlayd.core.leases.lease import Attributes, Hold, Lease
from overlayd.core.leases.store import (
    CONFIG,
    FROZEN,
    HELD,
    OWN,
    SUBNETS,
    Change,
    Changes,
    Deleted,
    Record,
    Snapshot,
)
from overlayd.core.network.addresses import IPNetwork, Subnet
from overlayd.core.network.config import NetworkConfig
from overlayd.core.status.problem import Problem
from overlayd.core.text.strict_json import SIZE_LIMIT, quoted

NAMED = 5
"""Problems of one kind that are told one by one; the rest are counted."""


@dataclass(frozen=True, slots=True)
class BookEntry:
    """One key: what the store said of it last, and what that means.

    `subnet` is set wherever the key names one, `lease` or `hold` if the value is right too, else `fault`.  The
    config and a deleted key have none of these.
    """

    change: Change
    subnet: Subnet | None = None
    lease: Lease | None = None
    hold: Hold | None = None
    fault: Problem | None = None


@dataclass(frozen=True)
class LeaseBook:
    """What the store holds, as far as `revision`.  What follows from the entries is reckoned once.

    `in_sync`: a whole snapshot was absorbed, so what is not in the book is not in the store.  `floor` is that
    snapshot's revision.  `highest` is the highest revision that was ever seen; above `revision` it shows that
    the store went back (it was restored from a backup), which it did `returns` times.
    """

    entries: Mapping[str, BookEntry] = field(default_factory=dict)
    revision: int = 0
    highest: int = 0
    floor: int = 0
    returns: int = 0
    in_sync: bool = False

    @property
    def config(self) -> Record | None:
        entry = self.entries.get(CONFIG)
        return entry.change if entry is not None and isinstance(entry.change, Record) else None

    @cached_property
    def leases(self) -> tuple[Lease, ...]:
        """Every well-formed lease, oldest first; of what one transaction wrote, by the name of the key."""
        by_age = sorted(
            (lease.create_revision, lease.mod_revision, name, lease)
            for name, entry in self.entries.items()
            if (lease := entry.lease) is not None
        )
        return tuple(lease for *_, lease in by_age)

    @cached_property
    def damaged(self) -> tuple[Lease, ...]:
        """The leases whose value can't be read, with empty attributes: their writer can tell its own."""
        return tuple(
            Lease(
                entry.subnet,
                Attributes(()),
                entry.change.create_revision,
                entry.change.mod_revision,
                entry.change.lease_id,
            )
            for name, entry in self.entries.items()
            if entry.fault is not None
            and entry.subnet is not None
            and isinstance(entry.change, Record)
            and name.startswith(SUBNETS)
        )

    @cached_property
    def holds(self) -> tuple[Hold, ...]:
        """Every reservation that a node holds at present, by its key."""
        return tuple(entry.hold for entry in self.entries.values() if entry.hold is not None)

    @property
    def is_frozen(self) -> bool:
        """Whether claims are forbidden for the time being."""
        entry = self.entries.get(FROZEN)
        return entry is not None and isinstance(entry.change, Record)

    @cached_property
    def taken(self) -> tuple[Subnet, ...]:
        """Every subnet that a key under `subnets/` names, whatever it holds: none of them can be claimed."""
        return tuple(entry.subnet for entry in self.entries.values() if entry.subnet is not None)

    def served(self, config: NetworkConfig) -> tuple[Lease, ...]:
        """The leases that packets may be sent to, this node's own among them: disjoint, oldest first."""
        return _judge(self.leases, config).served

    def peers(self, config: NetworkConfig, is_own: Callable[[Lease], bool]) -> tuple[Lease, ...]:
        """The served leases of the others, oldest first.  A lease that overlaps an older one of our own is not
        among them, nor is a reservation whose node has yet to come, or has gone elsewhere: nothing can be sent
        there."""
        served = self.served(config)
        elsewhere = {lease.attributes.node_id for lease in served if not self._is_idle(lease)}
        return tuple(
            lease
            for lease in served
            if lease.attributes.public_ips
            and not (self._is_idle(lease) and lease.attributes.node_id in elsewhere)
            and not is_own(lease)
        )

    def _is_idle(self, lease: Lease) -> bool:
        """Whether this is a reservation that its node does not hold.  That alone is no reason not to serve it: its
        node may be cut off from the store, and still there."""
        node_id = lease.attributes.node_id
        if not lease.is_reservation or not node_id:
            return False
        return not any(hold.subnet == lease.subnet and hold.node_id == node_id for hold in self.holds)

    def differs_from(self, before: LeaseBook) -> bool:
        """Tell whether there is anything new to decide on; a higher revision alone is not."""
        same = self.entries == before.entries
        return not same or (self.in_sync, self.went_back) != (before.in_sync, before.went_back)

    @property
    def went_back(self) -> bool:
        """Whether the store has been at a higher revision than it is at now."""
        return self.revision < self.highest

    def problems(self, config: NetworkConfig | None) -> tuple[Problem, ...]:
        """What is wrong in the store, in a fixed order; without a config, what needs none to be seen."""
        found = [entry.fault for entry in self.entries.values() if entry.fault is not None]
        if config is not None:
            found += _judge(self.leases, config).problems
        if self.went_back:
            found.append(
                Problem(
                    "store-went-back",
                    f"the store went back from revision {self.highest} to {self.revision}",
                    "Was it restored from a backup? What was written since then is lost; nodes claim again",
                )
            )
        return tuple(_capped(found))


def absorb_snapshot(book: LeaseBook, snapshot: Snapshot, asked_at: int) -> LeaseBook:
    """The book after a snapshot that was asked for when the book stood at revision `asked_at`.

    A linearizable store never answers with less than that: if this one does, it went back in time, and the book
    starts again from what it says now (a watch opened before is worthless then).  A snapshot may well be older
    than changes that were absorbed while it was under way: those stay.
    """
    went_back = snapshot.revision < asked_at
    if not went_back and snapshot.revision < book.floor:
        return book
    entries = {record.name: _entry(record, book.entries.get(record.name)) for record in snapshot.records}
    if not went_back:
        entries |= {
            name: entry for name, entry in book.entries.items() if entry.change.mod_revision > snapshot.revision
        }
    revision = snapshot.revision if went_back else max(book.revision, snapshot.revision)
    return LeaseBook(
        MappingProxyType(entries),
        revision,
        max(book.highest, revision),
        floor=snapshot.revision,
        returns=book.returns + went_back,
        in_sync=True,
    )


def absorb_changes(book: LeaseBook, changes: Changes) -> LeaseBook:
    """The book after news from the watch; what it knows already, or better, is skipped."""
    entries = dict(book.entries)
    for change in changes.changes:
        known = entries.get(change.name)
        if change.mod_revision > max(book.floor, known.change.mod_revision if known is not None else 0):
            entries[change.name] = _entry(change, known)
    revision = max(book.revision, changes.revision)
    return replace(
        book,
        entries=MappingProxyType(entries) if changes.changes else book.entries,
        revision=revision,
        highest=max(book.highest, revision),
    )


def _entry(change: Change, known: BookEntry | None) -> BookEntry:
    """What this change means; nothing is parsed again that is known word for word."""
    if known is not None and known.change == change:
        return known
    if isinstance(change, Deleted) or change.name in (CONFIG, FROZEN):
        return BookEntry(change)
    if change.name.startswith(OWN):
        return _own_entry(change)
    try:
        subnet = parse_subnet_name(change.name)
    except RecordError as error:
        return _faulty(change, None, "key-unknown", f"key {quoted(change.name)} {error}")
    if len(change.value) > SIZE_LIMIT:
        text = f"lease {subnet} has {len(change.value)} bytes, at most {SIZE_LIMIT} are read"
        return _faulty(change, subnet, "lease-oversized", text)
    try:
        return BookEntry(change, subnet, parse_lease(change))
    except RecordError as error:
        return _faulty(change, subnet, "lease-malformed", f"lease {subnet} {error}")


def _own_entry(record: Record) -> BookEntry:
    """A hold; a key of some later overlayd means nothing here and is nobody's fault."""
    if not record.name.startswith(HELD):
        return BookEntry(replace(record, value=b""))
    try:
        subnet = parse_hold_name(record.name)
    except RecordError as error:
        return _faulty(record, None, "key-unknown", f"key {quoted(record.name)} {error}")
    try:
        return BookEntry(record, hold=parse_hold(record))
    except RecordError as error:
        return _faulty(record, subnet, "hold-malformed", f"the hold of {subnet} {error}")


def _faulty(record: Record, subnet: Subnet | None, code: str, text: str) -> BookEntry:
    remedy = f"Correct the key {quoted(record.name)} in the store, or delete it"
    return BookEntry(replace(record, value=b""), subnet, fault=Problem(code, text, remedy))


# Which leases are served --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Judgement:
    served: tuple[Lease, ...]
    problems: tuple[Problem, ...]


@dataclass(slots=True)
class _Held:
    """Disjoint intervals of addresses of one family, in order, and who holds each."""

    first: list[int] = field(default_factory=list)
    last: list[int] = field(default_factory=list)
    holder: list[Lease] = field(default_factory=list)

    def find_holder(self, first: int, last: int) -> Lease | None:
        """Some holder of an address in this interval."""
        # As the intervals are disjoint, of those that begin in time the last one reaches furthest.
        index = bisect_right(self.first, last) - 1
        return self.holder[index] if index >= 0 and self.last[index] >= first else None

    def add(self, first: int, last: int, holder: Lease) -> None:
        index = bisect_right(self.first, first)
        self.first.insert(index, first)
        self.last.insert(index, last)
        self.holder.insert(index, holder)


def _judge(leases: Iterable[Lease], config: NetworkConfig) -> _Judgement:
    """The rule, for leases that come oldest first.  One that isn't served takes nothing from a younger one."""
    networks = {span.network.version: _bounds(span.network) for span in config.ranges}
    held = {version: _Held() for version in networks}
    served: list[Lease] = []
    problems: list[Problem] = []
    for lease in leases:
        bounds = [(prefix.version, *_bounds(prefix)) for prefix in lease.subnet.prefixes]
        if not all(
            version in networks and networks[version][0] <= first and last <= networks[version][1]
            for version, first, last in bounds
        ):
            problems.append(_outside(lease, config))
            continue
        holders = (held[version].find_holder(first, last) for version, first, last in bounds)
        if (holder := next(filter(None, holders), None)) is not None:
            problems.append(_overlap(lease, holder))
            continue
        for version, first, last in bounds:
            held[version].add(first, last, lease)
        served.append(lease)
    return _Judgement(tuple(served), tuple(problems))


def _bounds(prefix: IPNetwork) -> tuple[int, int]:
    first = int(prefix.network_address)
    return first, first + (1 << (prefix.max_prefixlen - prefix.prefixlen)) - 1


def _outside(lease: Lease, config: NetworkConfig) -> Problem:
    network = " and ".join(str(span.network) for span in config.ranges)
    text = f"lease {lease.subnet} of {_holder(lease)} is outside the network {network} and not served"
    release = f"Release the reservation: `overlayd leases release {lease.subnet}`"
    claim = "Let its node claim a new one, or delete its key in the store"
    return Problem("lease-outside", text, release if lease.is_reservation else claim)


def _overlap(lease: Lease, older: Lease) -> Problem:
    text = (
        f"lease {lease.subnet} of {_holder(lease)} overlaps the older lease {older.subnet} of {_holder(older)}"
        " and is not served"
    )
    return Problem("lease-overlap", text, "Let its node claim a new one, or delete its key in the store")


def _holder(lease: Lease) -> str:
    return lease.attributes.node_name or lease.attributes.identity


def _capped(problems: Iterable[Problem]) -> Iterator[Problem]:
    """The problems in order, at most NAMED of one code, then how many more there are."""
    for code, group in groupby(sorted(problems), key=lambda problem: problem.code):
        same = list(group)
        yield from same[:NAMED]
        if len(same) > NAMED:
            yield Problem(code, f"{len(same) - NAMED} more problems of this kind ({code})")
