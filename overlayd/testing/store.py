"""The store in memory with what only a simulation may do to it: go back in time, and tell of every write."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import trio

from overlayd.core.leases.store import Delete, Put, Record
from overlayd.store.memory import MemoryStore
from overlayd.store.memory import _Lease as StoredLease


@dataclass(frozen=True, slots=True)
class Backup:
    """The records at one revision, and the leases that there were."""

    revision: int
    records: dict[str, Record]
    leases: dict[int, StoredLease]


class SimulatedStore(MemoryStore):
    """`written` is called after every write, whoever's."""

    def __init__(self, written: Callable[[], None]) -> None:
        super().__init__()
        self._written = written

    @property
    def revision(self) -> int:
        return self._revision

    @property
    def records(self) -> dict[str, Record]:
        """What there is at this instant."""
        return self._records

    def _write(self, actions: Iterable[Put | Delete]) -> None:
        before = self._revision
        super()._write(actions)
        if self._revision != before:
            self._written()

    def compact_all(self) -> None:
        """Forget all history before the present revision."""
        if self._compacted < self._revision:
            self.compact(self._revision)

    def back_up(self) -> Backup:
        return Backup(self._revision, dict(self._records), dict(self._leases))

    def restore(self, backup: Backup) -> None:
        """Restore the backup, with its leases as if just renewed, as etcd's are after a restore.  Ids of
        leases go on counting: etcd gives none twice.  Watches opened before are worthless now."""
        now = trio.current_time()
        self._revision, self._records = backup.revision, dict(backup.records)
        self._history = {number: told for number, told in self._history.items() if number <= backup.revision}
        self._compacted = min(self._compacted, backup.revision)
        self._leases = {
            lease_id: replace(lease, deadline=now + lease.ttl) for lease_id, lease in backup.leases.items()
        }
        self._written()
