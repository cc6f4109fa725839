"""The record book: what a key-value store holds, learned from snapshots and changes, in whatever pieces they come.

Per key the highest revision counts, and a deleted key is remembered as such; a snapshot is the whole truth as of
its revision, so it ends the memory of everything before, and what came after it stays.  Hence any split, order
or repetition of one history gives the same book, and nothing here depends on how the news came.

A record book is a value: absorbing makes a new one.  A record is parsed once, when it comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType

from overlayd.core.leases.book import LeaseBook, StoredConfig
from overlayd.core.leases.codec import (
    RecordError,
    parse_hold,
    parse_hold_name,
    parse_lease,
    parse_subnet_name,
)
from overlayd.core.leases.lease import Attributes, Lease
from overlayd.core.leases.lease_record import Hold, LeaseRecord
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
from overlayd.core.network.addresses import Subnet
from overlayd.core.status.problem import Problem
from overlayd.core.text.strict_json import SIZE_LIMIT, quoted


@dataclass(frozen=True, slots=True)
class RecordEntry:
    """One key: what the store said of it last, and what that means.

    `subnet` is set wherever the key names one; `lease` (and what the node reads of it, `shown`) or `hold` if the
    value is right too, else `fault`.  The config and a deleted key have none of these.
    """

    change: Change
    subnet: Subnet | None = None
    lease: LeaseRecord | None = None
    shown: Lease | None = None
    hold: Hold | None = None
    fault: Problem | None = None


@dataclass(frozen=True)
class RecordBook:
    """The content of the store, as far as `revision`.  What follows from the entries is computed once.

    `in_sync`: a whole snapshot was absorbed, so what is not in the book is not in the store.  `floor` is that
    snapshot's revision.  `highest` is the highest revision that was ever seen; above `revision` it shows that
    the store went back (it was restored from a backup), which it did `returns` times.
    """

    entries: Mapping[str, RecordEntry] = field(default_factory=dict)
    revision: int = 0
    highest: int = 0
    floor: int = 0
    returns: int = 0
    in_sync: bool = False

    @property
    def config(self) -> StoredConfig | None:
        entry = self.entries.get(CONFIG)
        if entry is None or not isinstance(entry.change, Record):
            return None
        return StoredConfig(entry.change.value, entry.change.mod_revision)

    @cached_property
    def leases(self) -> tuple[LeaseRecord, ...]:
        """Every well-formed lease, oldest first; of what one transaction wrote, by the name of the key."""
        return tuple(entry.lease for entry in self._by_age if entry.lease is not None)

    @cached_property
    def _by_age(self) -> tuple[RecordEntry, ...]:
        by_age = sorted(
            (lease.create_revision, lease.mod_revision, name, entry)
            for name, entry in self.entries.items()
            if (lease := entry.lease) is not None
        )
        return tuple(entry for *_, entry in by_age)

    @cached_property
    def damaged(self) -> tuple[LeaseRecord, ...]:
        """The leases whose value can't be read, with empty attributes: their writer can tell its own."""
        return tuple(
            LeaseRecord(
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

    @property
    def went_back(self) -> bool:
        """Whether the store has been at a higher revision than it is at now."""
        return self.revision < self.highest

    def differs_from(self, before: RecordBook) -> bool:
        """Tell whether there is anything new to decide on; a higher revision alone is not."""
        same = self.entries == before.entries
        return not same or (self.in_sync, self.went_back) != (before.in_sync, before.went_back)

    @cached_property
    def book(self) -> LeaseBook:
        """What a node reads of all this."""
        return LeaseBook(
            tuple(entry.shown for entry in self._by_age if entry.shown is not None),
            tuple(
                entry.subnet
                for entry in self.entries.values()
                if entry.fault is not None and entry.subnet is not None
            ),
            tuple(self._faults()),
            self.config,
            self.in_sync,
            self.is_frozen,
            self.revision,
        )

    def _faults(self) -> Iterable[Problem]:
        yield from (entry.fault for entry in self.entries.values() if entry.fault is not None)
        if self.went_back:
            yield Problem(
                "store-went-back",
                f"the store went back from revision {self.highest} to {self.revision}",
                "Was it restored from a backup? Later writes are lost; nodes claim again",
            )


def absorb_snapshot(book: RecordBook, snapshot: Snapshot, asked_at: int) -> RecordBook:
    """Learn a snapshot that was asked for when the book stood at revision `asked_at`.

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
    _show_holds(entries, entries.keys())
    revision = snapshot.revision if went_back else max(book.revision, snapshot.revision)
    return RecordBook(
        MappingProxyType(entries),
        revision,
        max(book.highest, revision),
        floor=snapshot.revision,
        returns=book.returns + went_back,
        in_sync=True,
    )


def absorb_changes(book: RecordBook, changes: Changes) -> RecordBook:
    """Learn news from the watch; what the book knows already, or better, is skipped."""
    entries = dict(book.entries)
    for change in changes.changes:
        known = entries.get(change.name)
        if change.mod_revision > max(book.floor, known.change.mod_revision if known is not None else 0):
            entries[change.name] = _entry(change, known)
    _show_holds(entries, [change.name for change in changes.changes])
    revision = max(book.revision, changes.revision)
    return replace(
        book,
        entries=MappingProxyType(entries) if changes.changes else book.entries,
        revision=revision,
        highest=max(book.highest, revision),
    )


def _show_holds(entries: dict[str, RecordEntry], changed: Iterable[str]) -> None:
    """Bring what is shown of reservations up to date with the holds beside them, for these keys."""
    names = {SUBNETS + name.removeprefix(HELD) if name.startswith(HELD) else name for name in changed}
    for name in names:
        entry = entries.get(name)
        if entry is None or entry.lease is None or entry.shown is None or not name.startswith(SUBNETS):
            continue
        lease, beside = entry.lease, entries.get(HELD + name.removeprefix(SUBNETS))
        holder = beside.hold.node_id if beside is not None and beside.hold is not None else ""
        is_held = not lease.is_reservation or lease.attributes.node_id in ("", holder)
        if is_held != entry.shown.is_held:
            entries[name] = replace(entry, shown=replace(entry.shown, is_held=is_held))


def _entry(change: Change, known: RecordEntry | None) -> RecordEntry:
    """Read this change; a record that is known word for word is not parsed again."""
    if known is not None and known.change == change:
        return known
    if isinstance(change, Deleted) or change.name in (CONFIG, FROZEN):
        return RecordEntry(change)
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
        lease = parse_lease(change)
    except RecordError as error:
        return _faulty(change, subnet, "lease-malformed", f"lease {subnet} {error}")
    shown = lease.lease
    if known is not None and known.shown == shown:
        shown = known.shown  # the same object, so that nothing is stated again for it
    return RecordEntry(change, subnet, lease, shown)


def _own_entry(record: Record) -> RecordEntry:
    """Read a hold; a key of some later overlayd means nothing here and is no fault."""
    if not record.name.startswith(HELD):
        return RecordEntry(replace(record, value=b""))
    try:
        subnet = parse_hold_name(record.name)
    except RecordError as error:
        return _faulty(record, None, "key-unknown", f"key {quoted(record.name)} {error}")
    try:
        return RecordEntry(record, hold=parse_hold(record))
    except RecordError as error:
        return _faulty(record, subnet, "hold-malformed", f"the hold of {subnet} {error}")


def _faulty(record: Record, subnet: Subnet | None, code: str, text: str) -> RecordEntry:
    remedy = f"Correct the key {quoted(record.name)} in the store, or delete it"
    return RecordEntry(replace(record, value=b""), subnet, fault=Problem(code, text, remedy))
