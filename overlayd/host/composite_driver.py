"""Several drivers behind one, so that the reconciler need not know of them.

Each item goes to the driver that declares its type, and that is all that is known here of items.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from overlayd.core.kernel.datapath import DatapathReport
from overlayd.core.kernel.driver import ALL, Driver, Failure, Keys, OnChange, Operation, Scope
from overlayd.core.kernel.items import Item, KernelState, Key


class CompositeDriver(Driver):
    """All `drivers` as one.  Raises ValueError where two of them claim one type.

    They may share a noun: a driver that makes devices of a kind of its own has link items of its own.
    """

    def __init__(self, drivers: Iterable[Driver]) -> None:
        self._drivers = tuple(drivers)
        self._owners = _owners(self._drivers)
        self.kinds = frozenset(self._owners)
        self.devices = tuple(dict.fromkeys(pattern for each in self._drivers for pattern in each.devices))

    async def observe(self, scope: Scope, keys: Keys = ALL) -> KernelState:
        """Observe items that need another driver's items before these; they count only if these are there: a
        datapath whose device is gone is attached to nothing, even if it has not noticed yet."""
        found: list[KernelState] = []
        awaited: set[Key] = set()
        for driver in sorted(self._drivers, key=lambda each: not _stands_on_others(each)):
            if keys is not ALL and not _is_concerned(driver, keys):
                continue
            found.append(await driver.observe(scope, keys))
            if _stands_on_others(driver):
                containers = _containers_elsewhere(driver, found[-1])
                awaited |= containers
                keys = ALL if keys is ALL else keys | containers
        present = KernelState.union(found)
        lost = awaited - present.by_key.keys()
        if lost:
            return KernelState.of(item for item in present.items if item.container not in lost)
        return present

    async def apply(self, operations: Sequence[Operation]) -> tuple[Failure | None, ...]:
        outcomes: list[Failure | None] = [None] * len(operations)
        parts: dict[Driver, dict[int, Operation]] = {}
        for position, operation in enumerate(operations):
            if (driver := self._owners.get(type(operation.item))) is not None:
                parts.setdefault(driver, {})[position] = operation
            else:
                reason = f"no driver is installed for {type(operation.item).noun} items"
                outcomes[position] = Failure(errno.EOPNOTSUPP, reason)
        for driver, part in parts.items():
            for position, outcome in zip(part, await driver.apply(list(part.values())), strict=True):
                outcomes[position] = outcome
        return tuple(outcomes)

    @asynccontextmanager
    async def watch(self, on_change: OnChange) -> AsyncGenerator[None, None]:
        async with AsyncExitStack() as stack:
            for driver in self._drivers:
                await stack.enter_async_context(driver.watch(on_change))
            yield

    def report(self) -> DatapathReport | None:
        """Report on the datapath that is desired, None if none is."""
        return next((report for each in self._drivers if (report := each.report()) is not None), None)


def _owners(drivers: Sequence[Driver]) -> Mapping[type[Item], Driver]:
    owners: dict[type[Item], Driver] = {}
    for driver in drivers:
        for kind in driver.kinds:
            if (other := owners.setdefault(kind, driver)) is not driver:
                names = " and ".join(type(each).__qualname__ for each in (other, driver))
                raise ValueError(f"{names} both claim the items of {kind.__module__}.{kind.__qualname__}")
    return owners


def _is_concerned(driver: Driver, keys: frozenset[Key]) -> bool:
    nouns = {key[0] for key in keys}
    return any(kind.noun in nouns or kind.within in nouns for kind in driver.kinds)


def _stands_on_others(driver: Driver) -> bool:
    return any(kind.within and kind.within not in _nouns(driver) for kind in driver.kinds)


def _containers_elsewhere(driver: Driver, state: KernelState) -> frozenset[Key]:
    containers = {item.container for item in state.items}
    return frozenset(key for key in containers if key is not None and key[0] not in _nouns(driver))


def _nouns(driver: Driver) -> frozenset[str]:
    return frozenset(kind.noun for kind in driver.kinds)
