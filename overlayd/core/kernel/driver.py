"""The seam to the kernel: operations go in, observed state and failures come out.

A driver owns kinds of items.  Several of them stand behind one (`host.composite_driver`), which hands each item to
the driver that owns its type; nothing else decides whose an item is.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from typing import ClassVar, Final, Literal, Protocol

from overlayd.core.kernel.datapath import DatapathReport
from overlayd.core.kernel.items import Item, KernelState, Key


class Verb(enum.Enum):
    ADD = "add"
    """The key is free."""
    CHANGE = "change"
    """The key is taken by an item of ours, `was`, which is replaced."""
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
    """The items that `observe` counts as ours beyond those on a device of ours.

    `underlay`: gateway routes with our protocol number on these interfaces are ours (host-gw, direct
    routing).  The same protocol number on any other foreign device belongs to another program.
    """

    underlay: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class DevicePattern:
    """Devices that are ours: `name` is a regular expression for the whole of it, `kind` the word for the kind in
    `ip -d link`.  A device of one of these names and another kind is foreign."""

    name: str
    kind: str

    def fits(self, name: str, kind: str) -> bool:
        return kind == self.kind and re.fullmatch(self.name, name) is not None


def is_our_device(patterns: Iterable[DevicePattern], name: str, kind: str) -> bool:
    """Tell whether a device is overlayd's, given the patterns of all drivers."""
    return any(pattern.fits(name, kind) for pattern in patterns)


class _All(enum.Enum):
    ALL = enum.auto()


ALL: Final = _All.ALL
"""All items that there are."""
Keys = frozenset[Key] | Literal[_All.ALL]
"""Which items: those with these keys, and all that they contain (a link's key names its routes, too)."""


def is_named(keys: Keys, item: Item) -> bool:
    """Tell whether `keys` name this item."""
    return keys is ALL or item.key in keys or item.container in keys


OnChange = Callable[[Keys], None]
"""Called when items with these keys may have changed; it returns at once."""


class Driver(Protocol):
    """The keeper of some kinds of items in one network namespace, or a fake that obeys the same contract tests.

    Subclass it, so that what has a default here need not be said.  `overlayd.testing.contracts` has the tests.
    """

    kinds: frozenset[type[Item]]
    """The types of its items.  No other driver has any of them."""
    devices: tuple[DevicePattern, ...] = ()
    """The devices that are ours on its account, whichever driver makes them."""
    is_volatile: ClassVar[bool] = False
    """Whether its items live in this process and end with it.  Then they are kept in a file, and put back when the
    daemon starts again."""

    async def observe(self, scope: Scope, keys: Keys = ALL) -> KernelState:
        """Return the items of its kinds that are ours, and nothing that is not.

        A restarted daemon remembers nothing, so they are told by marks that outlive it.  Of the items that `keys`
        name all must be in it that exist, so what is absent there does not exist; others may be in it.  Raises
        OSError when the kernel cannot be asked.
        """
        ...

    async def apply(self, operations: Sequence[Operation]) -> tuple[Failure | None, ...]:
        """Carry out operations that do not depend on one another, in order; one outcome for each.

        One refused operation never keeps another from being tried.  Adding what exists just so and removing
        what is gone both succeed.  Nothing that is not ours is altered, removed or hidden: what stands in the way
        is a Failure.
        """
        ...

    def watch(self, on_change: OnChange) -> AbstractAsyncContextManager[None]:
        """Call `on_change`, while open, after each change that is not by `apply`; one by it may be told, too.

        It may name the keys that may have changed, or say ALL.  No change after the opening is lost: one that
        could not be received is told as ALL.
        """
        ...

    def report(self) -> DatapathReport | None:
        """Report on a datapath in this process: None while none is desired, or if it has none."""
        return None


class OpenDriver(Protocol):
    """The function that an entry point of the group `overlayd.drivers` names."""

    def __call__(self, implementation: str | None) -> AbstractAsyncContextManager[Driver]:
        """Open the driver; it runs nothing until it is asked to.

        `implementation` is the choice of `--datapath`: `c`, `python`, or None for the better one that is there; a
        driver that has no choice ignores it.  Raises DatapathUnavailableError where the wanted one is not there.
        """
        ...


@dataclass
class Watchers:
    """Those who watch a driver that knows of its changes itself."""

    _told: list[OnChange] = field(default_factory=list)

    @contextmanager
    def added(self, on_change: OnChange) -> Generator[None, None, None]:
        self._told.append(on_change)
        try:
            yield
        finally:
            self._told.remove(on_change)

    def tell(self, keys: Keys = ALL) -> None:
        for on_change in tuple(self._told):
            on_change(keys)
