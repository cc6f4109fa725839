"""The abstract store: the Store contract as pure functions of one frozen value.

It answers as `overlayd.store.memory.MemoryStore` does, request by request (tests/model compares the two), but for
one thing: a lease whose time has come is not ended when somebody looks.  It *may* be ended from then on, by
`end`, or never: that choice is the searcher's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from overlayd.core.leases.store import (
    CONFIG,
    OWN,
    SUBNETS,
    Committed,
    Delete,
    Guard,
    Put,
    Record,
    Refused,
    Snapshot,
    Transaction,
)


@dataclass(frozen=True, slots=True)
class Lived:
    """A grant: `left` seconds to go until the store may end it."""

    lease_id: int
    ttl: int
    left: float


@dataclass(frozen=True, slots=True)
class AbstractStore:
    """`records` and `grants` are in the order of their names and ids."""

    revision: int = 1
    records: tuple[Record, ...] = ()
    grants: tuple[Lived, ...] = ()

    def find(self, name: str) -> Record | None:
        return next((record for record in self.records if record.name == name), None)

    def has_grant(self, lease_id: int) -> bool:
        return any(lived.lease_id == lease_id for lived in self.grants)


def snapshot(store: AbstractStore) -> Snapshot:
    below = {p: tuple(r for r in store.records if r.name.startswith(p)) for p in (SUBNETS, OWN)}
    return Snapshot(store.revision, store.find(CONFIG), below[SUBNETS], below[OWN])


def grant(store: AbstractStore, lease_id: int, ttl: int) -> AbstractStore:
    lived = (*store.grants, Lived(lease_id, ttl, ttl))
    return replace(store, grants=tuple(sorted(lived, key=lambda one: one.lease_id)))


def keepalive(store: AbstractStore, lease_id: int) -> tuple[AbstractStore, int]:
    """The seconds that the lease lives from now on, 0 when it no longer exists."""
    ttl = next((lived.ttl for lived in store.grants if lived.lease_id == lease_id), 0)
    renewed = (replace(one, left=one.ttl) if one.lease_id == lease_id else one for one in store.grants)
    return replace(store, grants=tuple(renewed)), ttl


def end(store: AbstractStore, lease_id: int) -> AbstractStore:
    """End a lease, and delete every key attached to it in one revision; an unknown one is no error."""
    if not store.has_grant(lease_id):
        return store
    store = replace(store, grants=tuple(one for one in store.grants if one.lease_id != lease_id))
    return _write(store, tuple(Delete(r.name) for r in store.records if r.lease_id == lease_id))


def commit(store: AbstractStore, transaction: Transaction) -> tuple[AbstractStore, Committed | Refused | None]:
    """None: the store refuses the request itself, as a put names a lease that does not exist."""
    if not all(_holds(store, guard) for guard in transaction.guards):
        return store, Refused(store.revision)
    for action in transaction.actions:
        if isinstance(action, Put) and action.lease_id and not store.has_grant(action.lease_id):
            return store, None
    store = _write(store, transaction.actions)
    return store, Committed(store.revision)


def age(store: AbstractStore, seconds: float) -> AbstractStore:
    grants = tuple(replace(one, left=max(0.0, one.left - seconds)) for one in store.grants)
    return replace(store, grants=grants)


def _holds(store: AbstractStore, guard: Guard) -> bool:
    record = store.find(guard.name)
    return (getattr(record, guard.field.value) if record else 0) == guard.equals


def _write(store: AbstractStore, actions: tuple[Put | Delete, ...]) -> AbstractStore:
    revision = store.revision + 1
    records = {record.name: record for record in store.records}
    changed = False
    for action in actions:
        was = records.pop(action.name, None)
        if isinstance(action, Put):
            created = was.create_revision if was else revision
            records[action.name] = Record(action.name, action.value, created, revision, action.lease_id)
        changed = changed or isinstance(action, Put) or was is not None
    if not changed:
        return store
    return replace(store, revision=revision, records=tuple(records[name] for name in sorted(records)))
