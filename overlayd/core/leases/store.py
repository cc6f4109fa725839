"""The contract of a key-value store, below the seam: raw records at one revision, and guarded transactions.

Names are relative to the cluster's prefix: `config`, `subnets/10.244.3.0-24`.  Nothing here is parsed; a
record may hold anything.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from overlayd.core.leases.source import StoreError as StoreError

CONFIG = "config"
SUBNETS = "subnets/"
OWN = "overlayd/"
"""Keys that only overlayd knows; flannel reads nothing here."""
HELD = "overlayd/held/"
"""Below it, for each reservation that a node holds, a key on that node's grant."""
FROZEN = "overlayd/frozen"
"""While this key exists, no subnet is claimed."""


def is_watched(name: str) -> bool:
    """Tell whether snapshots and watches tell of the record with this name."""
    return name == CONFIG or name.startswith((SUBNETS, OWN))


class StoreRefused(StoreError):
    """The store answered and said no for good: credentials, permissions, a malformed request."""


class Compacted(StoreError):
    """The revision asked for is gone from the store's history: take a new snapshot."""


@dataclass(frozen=True, slots=True)
class Record:
    """One key as stored.  `lease_id` is the id of the store's lease that the key is attached to, 0 for none."""

    name: str
    value: bytes
    create_revision: int
    mod_revision: int
    lease_id: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The config and every key under `subnets/` and `overlayd/`, all read at one revision."""

    revision: int
    config: Record | None
    subnets: tuple[Record, ...]
    own: tuple[Record, ...] = ()

    @property
    def records(self) -> tuple[Record, ...]:
        return (*(() if self.config is None else (self.config,)), *self.subnets, *self.own)


@dataclass(frozen=True, slots=True)
class Deleted:
    """A key is gone (deleted or expired) as of `mod_revision`."""

    name: str
    mod_revision: int


Change = Record | Deleted


@dataclass(frozen=True, slots=True)
class Changes:
    """The changes of the config and the subnets up to and including `revision`; may be empty."""

    revision: int
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Grant:
    """A lease of the store: its id, and the seconds that it lives without a keepalive."""

    lease_id: int
    ttl: int


class Field(enum.Enum):
    """The field that a guard compares; each is 0 for a key that does not exist."""

    CREATE_REVISION = "create_revision"
    MOD_REVISION = "mod_revision"
    LEASE_ID = "lease_id"


@dataclass(frozen=True, slots=True)
class Guard:
    name: str
    field: Field
    equals: int


@dataclass(frozen=True, slots=True)
class Put:
    name: str
    value: bytes
    lease_id: int


@dataclass(frozen=True, slots=True)
class Delete:
    name: str


@dataclass(frozen=True, slots=True)
class Transaction:
    """All actions at once if every guard holds, else none."""

    guards: tuple[Guard, ...]
    actions: tuple[Put | Delete, ...]


@dataclass(frozen=True, slots=True)
class Committed:
    """The transaction took effect at this revision."""

    revision: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A guard did not hold: nothing was written.  The store stood at this revision."""

    revision: int


class Store(Protocol):
    """A linearizable key-value store with leases.  Every method raises StoreError when it cannot answer."""

    async def snapshot(self) -> Snapshot: ...

    async def grant(self, ttl: int) -> Grant:
        """Return a new lease of `ttl` seconds."""
        ...

    async def keepalive(self, lease_id: int) -> int:
        """Renew a lease: the seconds that it lives from now on, 0 when it no longer exists."""
        ...

    async def revoke(self, lease_id: int) -> None:
        """End a lease and delete every key attached to it; an unknown lease is no error."""
        ...

    async def commit(self, transaction: Transaction) -> Committed | Refused:
        """Commit a transaction.  Raises StoreRefused if a put names a lease that does not exist."""
        ...

    def watch(self, after: int) -> AbstractAsyncContextManager[AsyncIterator[Changes]]:
        """Return everything that happens after this revision, in order, nothing lost and nothing twice.

        The iterator raises StoreError when it can't promise that any longer (Compacted: a new snapshot is
        needed); it never ends quietly.  An item without changes may come at any time: it shows that the watch
        lives and how far the store has got.
        """
        ...
