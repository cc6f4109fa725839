"""The trace of a simulated run: its messages, faults and notes, in order."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import trio


class TraceKind(enum.Enum):
    MESSAGE = "──▶"
    LOST = "──✗"
    NOTE = "·"
    BEGINS = "fault begins"
    ENDS = "fault ends"


@dataclass(frozen=True, slots=True)
class TraceEntry:
    """An entry `at` virtual seconds.

    A message arrives then, `travelled` seconds after it was sent; a note or a fault is about `source`.
    """

    at: float
    kind: TraceKind
    source: str
    target: str
    text: str
    travelled: float = 0.0

    def __str__(self) -> str:
        where = (
            f"{self.source} {self.kind.value} {self.target}" if self.target else f"{self.source} {self.kind.value}"
        )
        return f"{self.at:9.3f}  {where}  {self.text}"


class Trace:
    """The entries of one run."""

    def __init__(self) -> None:
        self.entries: list[TraceEntry] = []

    def message(self, source: str, target: str, text: str, travelled: float = 0.0) -> None:
        self._add(TraceKind.MESSAGE, source, target, text, travelled)

    def lost(self, source: str, target: str, text: str) -> None:
        self._add(TraceKind.LOST, source, target, text)

    def note(self, source: str, text: str) -> None:
        self._add(TraceKind.NOTE, source, "", text)

    def begins(self, source: str, text: str) -> None:
        self._add(TraceKind.BEGINS, source, "", text)

    def ends(self, source: str, text: str) -> None:
        self._add(TraceKind.ENDS, source, "", text)

    def _add(self, kind: TraceKind, source: str, target: str, text: str, travelled: float = 0.0) -> None:
        self.entries.append(TraceEntry(trio.current_time(), kind, source, target, text, travelled))

    def __str__(self) -> str:
        return "".join(f"{entry}\n" for entry in self.entries)
