"""Draws a trace as a sequence diagram in plain text.

Every node and the store is a column, time runs downwards.  An arrow is a message at the instant at which it
arrives, a cross one that was lost; a column is drawn thick while a fault lasts on it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from overlayd.testing.trace import TraceEntry, TraceKind

WIDTH = 9
"""Characters from one column to the next."""
TIME = 10
"""Characters before the first column."""


def draw(entries: Iterable[TraceEntry], columns: Sequence[str], last: int = 80) -> str:
    """Draw the last so many entries.  `columns` from left to right; entries about others are left out."""
    known = [entry for entry in entries if {entry.source, entry.target or entry.source} <= {*columns}]
    troubled: Counter[str] = Counter()
    lines = [" " * TIME + "".join(name.center(WIDTH) for name in columns)]
    if len(known) > last:
        lines.append(f"{'':{TIME}}… {len(known) - last} steps before …")
    for place, entry in enumerate(known):
        if entry.kind is TraceKind.BEGINS:
            troubled[entry.source] += 1
        if place >= len(known) - last:
            lines.append(_line(entry, columns, troubled))
        if entry.kind is TraceKind.ENDS:
            troubled[entry.source] -= 1
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _line(entry: TraceEntry, columns: Sequence[str], troubled: Counter[str]) -> str:
    cells = [(" " * (WIDTH // 2) + ("┃" if troubled[name] else "│")).ljust(WIDTH) for name in columns]
    row = list("".join(cells))
    source = _middle(columns.index(entry.source))
    if entry.target:
        _draw_arrow(row, source, _middle(columns.index(entry.target)), lost=entry.kind is TraceKind.LOST)
    else:
        row[source] = {TraceKind.BEGINS: "▼", TraceKind.ENDS: "▲"}.get(entry.kind, "●")
    words = {
        TraceKind.BEGINS: f"{entry.source}: {entry.text} …",
        TraceKind.ENDS: f"{entry.source}: … {entry.text}: over",
    }
    text = words.get(entry.kind, entry.text if entry.target else f"{entry.source}: {entry.text}")
    late = f" ({entry.travelled:.1f} s under way)" if entry.travelled >= 0.1 else ""
    return f"{entry.at:{TIME - 2}.3f}  {''.join(row)} {text}{late}"


def _middle(place: int) -> int:
    return place * WIDTH + WIDTH // 2


def _draw_arrow(row: list[str], start: int, end: int, *, lost: bool) -> None:
    step = 1 if end > start else -1
    for place in range(start + step, end, step):
        row[place] = {"┃": "╂"}.get(row[place], "─")
    head = end - step
    row[head] = "▶" if step > 0 else "◀"
    if lost:
        row[(start + end) // 2] = "✗"
        for place in range((start + end) // 2 + step, end, step):
            row[place] = " "
