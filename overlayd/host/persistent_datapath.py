"""A userspace datapath that picks up where the daemon's last life left it.

What the kernel forwards it goes on forwarding while no daemon runs, and after a restart without a store.  A
datapath in our own process stops with it; so that the gap is no longer than the restart itself, its items are kept
in a file in the run directory, which is gone after a reboot just as the kernel's state is, and put back at the
start.  What has changed meanwhile the reconciler finds, as with everything else that is there when it starts.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from overlayd.core.kernel.datapath import DatapathDriver, DatapathReport
from overlayd.core.kernel.driver import Failure, Hints, Operation, Scope, Verb
from overlayd.core.kernel.items import Datapath, Encap, KernelState
from overlayd.host.files import find_text, write_atomically

log = logging.getLogger("overlayd.datapath")


class PersistentDatapath:
    """`inner`, and what it was last asked for in a file of its own."""

    def __init__(self, inner: DatapathDriver, path: Path) -> None:
        self._inner = inner
        self._path = path
        self._kept = ""

    async def resume(self) -> None:
        """Put back what the file tells, if the device is still there for it."""
        try:
            self._kept = find_text(self._path) or ""
            items = parse_items(self._kept) if self._kept else KernelState()
        except (OSError, ValueError) as error:
            log.warning("datapath not resumed", extra={"reason": str(error)})
            return
        for kind in (Datapath, Encap):
            operations = [Operation(Verb.ADD, item) for item in items if isinstance(item, kind)]
            outcomes = await self._inner.apply(operations) if operations else ()
            for failure in outcomes:
                if failure is not None:
                    log.info("datapath not resumed", extra={"reason": failure.reason})
                    return
        if items:
            log.info("datapath resumed", extra={"entries": len(items) - 1})

    async def observe(self, scope: Scope) -> KernelState:
        return await self._inner.observe(scope)

    async def apply(self, operations: Sequence[Operation]) -> tuple[Failure | None, ...]:
        outcomes = await self._inner.apply(operations)
        self._keep(await self._inner.observe(Scope()))
        return outcomes

    def changes(self) -> AbstractAsyncContextManager[Hints]:
        return self._inner.changes()

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
    """A datapath's items as JSON."""
    return json.dumps([_members(item) for item in state if isinstance(item, Datapath | Encap)])


def _members(item: Datapath | Encap) -> dict[str, Any]:
    if isinstance(item, Datapath):
        own = [str(prefix) for prefix in item.own]
        return {"link": item.link, "local": str(item.local), "port": item.port, "own": own}
    to = str(item.destination)
    return {"link": item.link, "prefix": str(item.prefix), "destination": to, "port": item.port}


def parse_items(text: str) -> KernelState:
    """What `format_items` wrote.  Raises ValueError for anything else."""
    try:
        return KernelState.of(_item(members) for members in json.loads(text))
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"these are no items of a datapath: {error!r}") from error


def _item(members: dict[str, Any]) -> Datapath | Encap:
    link, port = str(members["link"]), int(members["port"])
    if "prefix" in members:
        return Encap(link, ip_network(members["prefix"]), ip_address(members["destination"]), port)
    return Datapath(link, ip_address(members["local"]), port, tuple(map(ip_network, members["own"])))
