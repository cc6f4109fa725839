"""The seam to a store of leases, of whatever kind: what a node reads there, and how it claims.

Everything above this seam reads a LeaseBook and a Tenure.  It knows nothing of revisions, grants, prefixes or
transactions: those are the store's side.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from overlayd.core.leases.book import LeaseBook
from overlayd.core.leases.claimer import Claimant, Claimer, ClaimRequest


class StoreError(Exception):
    """The store could not be asked.  Whether a write took effect is unknown."""


class LeaseSource(Protocol):
    """The config, the leases and the faults of one cluster, parsed."""

    @property
    def book(self) -> LeaseBook:
        """All that is known; out of sync before the first `refresh`."""
        ...

    def subscribe(self, news: Callable[[bool], None]) -> None:
        """Call `news` from now on whenever the book may have moved on, whoever brought that about.

        It is told whether there is anything new to decide on.
        """
        ...

    async def refresh(self) -> None:
        """Read everything afresh.  Raises StoreError."""
        ...

    def watch(self) -> AbstractAsyncContextManager[AsyncIterator[None]]:
        """Learn all that happens after the last `refresh`.

        After each item the book is up to date with it.  An item may come at any time, as a sign that the store
        lives.  The iterator raises StoreError once it can't promise any longer to miss nothing: then `refresh` and
        watch again.  It never ends quietly.
        """
        ...

    async def write_first_config(self, value: bytes) -> bool:
        """Write a network config where there is none yet, and tell whether that was so.  Raises StoreError."""
        ...


class Claims(Protocol):
    """The edges of one claimer: what it sees, and who carries out its commands."""

    @property
    def start(self) -> Claimer[Any, Any]:
        """The claimer at the start of a life."""
        ...

    def look(self) -> Any:
        """Return the event that shows the claimer what there is at present; a tick while there is nothing to
        show."""
        ...

    async def carry_out(self, command: Any) -> Any:
        """Carry out a command; the event that tells its outcome.  It fails by an event, never by an exception."""
        ...


class LeaseStore(Protocol):
    """One cluster's leases, as a node has them."""

    @property
    def source(self) -> LeaseSource: ...

    def claims(
        self, claimant: Claimant, request: Callable[[], ClaimRequest | None], clock: Callable[[], float]
    ) -> Claims:
        """Prepare to claim for this node.

        `request` gives what the node wants now, None while that is not known.  `clock` tells the seconds of
        CLOCK_BOOTTIME.
        """
        ...
