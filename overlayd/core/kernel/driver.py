"""The seam to the kernel: operations go in, observed state and failures come out."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from overlayd.core.kernel.items import Item, KernelState, Key


class Verb(enum.Enum):
    ADD = "add"
    """The key is free."""
    CHANGE = "change"
    """The key is taken by an item of ours, `was`, which is replaced in place."""
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class Operation:
    """One change of kernel state.  `needs` are the keys of items that must be in place before it is tried."""

    verb: Verb
    item: Item
    was: Item | None = None
    needs: frozenset[Key] = frozenset()

    def __str__(self) -> str:
        return f"{self.verb.value} {self.item}"


@dataclass(frozen=True, slots=True)
class Failure:
    """The kernel's refusal: an errno value (0 where there is none) and a sentence for the operator."""

    errno: int
    reason: str


@dataclass(frozen=True, slots=True)
class Scope:
    """What `observe` counts as ours, beyond what lives on a device of ours.

    `underlay`: gateway routes with our protocol number on these interfaces are ours (host-gw, direct
    routing).  The same protocol number on any other foreign device is somebody else's.
    """

    underlay: frozenset[str] = frozenset()


class Driver(Protocol):
    """The kernel of one network namespace, or a fake that obeys the same contract tests."""

    async def observe(self, scope: Scope) -> KernelState:
        """All that is ours, and nothing that is not.

        Ours are: devices named `ovl.<n>` or `ovl6.<n>` of kind vxlan, and `ovl.udp` of kind tun (not tap);
        every address, every FDB entry with a destination and every permanent neighbour on them; unicast routes
        of the main table with our protocol number that leave by them; gateway routes with our protocol number
        that leave by an interface of `scope.underlay`; IPv4 forwarding, where it is on.  Raises OSError when the
        kernel cannot be asked.
        """
        ...

    async def apply(self, operations: Sequence[Operation]) -> tuple[Failure | None, ...]:
        """Carry out operations that do not depend on one another, in order; one outcome for each.

        One refused operation never keeps another from being tried.  Adding what exists just so and removing
        what is gone both succeed.  Adding a route never alters or hides behind a foreign route to the same
        destination: it is placed before it.  Adding a link whose name a foreign kind of device has is refused.
        """
        ...

    def changes(self) -> AbstractAsyncContextManager[Hints]:
        """While open, notes that something may have changed in links, addresses, routes or neighbours."""
        ...


class Hints(Protocol):
    async def wait(self) -> None:
        """Return once at least one change may have happened since the last return (a lost one counts)."""
        ...
