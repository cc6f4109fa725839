"""The seam to the datapaths: packet paths that run in this process beside the kernel's.

A datapath is a driver for two kinds of items, the `Datapath` itself and its `Encap` entries; all others go to
the kernel.  Its forwarding table is replaced whole by each `apply`, so a packet meets either the table before or
the table after, never one in between.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from overlayd.core.kernel.driver import Driver


@dataclass(frozen=True, slots=True)
class DatapathReport:
    """What a running datapath says of itself.

    `implementation` is `c` or `python`, `reason` why that one; `offloads` are those in use, by name.  `counters`
    count what passed and `drops` what did not, by reason, in packets unless the name says bytes; they begin at 0
    with the process and never go back.  `trouble` names why it stopped last, "" if it never did.
    """

    implementation: str
    reason: str
    offloads: tuple[str, ...] = ()
    counters: Mapping[str, int] = field(default_factory=dict)
    drops: Mapping[str, int] = field(default_factory=dict)
    trouble: str = ""


class DatapathDriver(Driver, Protocol):
    """Observes and applies `Datapath` and `Encap` items alone.

    `observe` shows a `Datapath` only while all of its threads run: one that died is absent, is therefore added
    again, and `changes` hints at it.
    """

    def report(self) -> DatapathReport | None:
        """None as long as none was asked for."""
        ...


class OpenDatapath(Protocol):
    """What an entry point of the group `overlayd.datapaths` names."""

    def __call__(self, implementation: str | None) -> AbstractAsyncContextManager[DatapathDriver]:
        """Runs nothing until it is asked to.  `implementation`: `c` or `python`, None for the better one that is
        there.  Raises DatapathUnavailableError where the wanted one is not."""
        ...


class DatapathUnavailableError(Exception):
    """The text says what is missing and how to get it."""
