"""A driver whose items live in this process, and that picks up where the daemon's last life left it.

What the kernel forwards it goes on forwarding while no daemon runs, and after a restart without a store.  A
datapath in our own process stops with it; so that the gap is no longer than the restart itself, its items are kept
in a file in the run directory, which is gone after a reboot just as the kernel's state is, and put back at the
start.  What has changed meanwhile the reconciler finds, as with everything else that is there when it starts.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import types
import typing
from collections.abc import Collection, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path

from overlayd.core.kernel.datapath import DatapathReport
from overlayd.core.kernel.driver import ALL, Driver, Failure, Keys, OnChange, Operation, Scope
from overlayd.core.kernel.items import Item, KernelState
from overlayd.core.kernel.plan import diff
from overlayd.core.network.addresses import Mac
from overlayd.host.files import find_text, write_atomically

log = logging.getLogger("overlayd.datapath")


def state_file(run_dir: Path, name: str) -> Path:
    """Return the file that keeps the items of the driver of this name."""
    return run_dir / f"ovl.{name}.json"


def find_state_files(run_dir: Path) -> Iterable[Path]:
    """Find the files of all drivers, installed or not."""
    return run_dir.glob("ovl.*.json")


class PersistentDriver(Driver):
    """`inner`, and what it was last asked for in a file of its own."""

    def __init__(self, inner: Driver, path: Path) -> None:
        self.kinds = inner.kinds
        self.devices = inner.devices
        self._inner = inner
        self._path = path
        self._kept = ""

    async def resume(self) -> None:
        """Put back what the file tells, if the device is still there for it."""
        try:
            self._kept = find_text(self._path) or ""
            items = parse_items(self._kept, self.kinds) if self._kept else KernelState()
        except (OSError, ValueError) as error:
            log.warning("datapath not resumed", extra={"reason": str(error)})
            return
        for stage in diff(items, KernelState(), sweep=False).stages:
            for failure in await self._inner.apply(stage):
                if failure is not None:
                    log.info("datapath not resumed", extra={"reason": failure.reason})
                    return
        if items:
            log.info("datapath resumed", extra={"items": len(items)})

    async def observe(self, scope: Scope, keys: Keys = ALL) -> KernelState:
        return await self._inner.observe(scope, keys)

    async def apply(self, operations: Sequence[Operation]) -> tuple[Failure | None, ...]:
        outcomes = await self._inner.apply(operations)
        self._keep(await self._inner.observe(Scope()))
        return outcomes

    def watch(self, on_change: OnChange) -> AbstractAsyncContextManager[None]:
        return self._inner.watch(on_change)

    def report(self) -> DatapathReport | None:
        return self._inner.report()

    def _keep(self, state: KernelState) -> None:
        text = format_items(state) if state.items else ""
        if text == self._kept:
            return
        try:
            if text:
                write_atomically(self._path, text, 0o600)
            else:
                self._path.unlink(missing_ok=True)
        except OSError as error:  # forwarding must not suffer from it; other files there are named in status
            log.warning("datapath not remembered", extra={"reason": str(error)})
            return
        self._kept = text


def format_items(state: KernelState) -> str:
    """Write items as JSON: of each its noun and its fields."""
    return json.dumps([[item.noun, *_fields(item)] for item in state], default=str)


def _fields(item: Item) -> Iterable[object]:
    assert dataclasses.is_dataclass(item)
    return (getattr(item, field.name) for field in dataclasses.fields(item))


def parse_items(text: str, kinds: Collection[type[Item]]) -> KernelState:
    """Read what `format_items` wrote of items of these kinds.  Raises ValueError for anything else."""
    by_noun = {kind.noun: kind for kind in kinds}
    try:
        return KernelState.of(_parse_item(by_noun[noun], values) for noun, *values in json.loads(text))
    except (TypeError, KeyError, NameError, AttributeError) as error:
        raise ValueError(f"these are not the items of a driver: {error!r}") from error


def _parse_item(kind: type[Item], values: Sequence[object]) -> Item:
    assert dataclasses.is_dataclass(kind)
    hints = typing.get_type_hints(kind)
    fields = dataclasses.fields(kind)
    members = {field.name: _parse(hints[field.name], value) for field, value in zip(fields, values, strict=True)}
    item: Item = kind(**members)
    return item


def _parse(hint: object, value: object) -> object:
    """Read a value of this type: text, a number, a truth value, an address, a network, a MAC, a tuple or an
    optional of these.  Raises ValueError."""
    is_union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    options = typing.get_args(hint) if is_union else (hint,)
    if value is None and type(None) in options:
        return None
    for option in options:
        if typing.get_origin(option) is tuple and isinstance(value, list):
            return tuple(_parse(typing.get_args(option)[0], each) for each in value)
        if option in (str, int, bool) and type(value) is option:
            return value
        if isinstance(value, str) and option is Mac:
            return Mac.parse(value)
        if isinstance(value, str) and option in (IPv4Network, IPv6Network):
            return _checked(ip_network(value), options)
        if isinstance(value, str) and option in (IPv4Address, IPv6Address):
            return _checked(ip_address(value), options)
    raise ValueError(f"{value!r} is not of the type {hint}")


def _checked(value: object, options: Collection[object]) -> object:
    if type(value) not in options:
        raise ValueError(f"{value} is of the wrong address family")
    return value
