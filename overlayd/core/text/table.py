"""Tables for a terminal: columns that line up on the screen, whatever the cells hold.

Cells may come from the store or from other hosts, so nothing in them reaches the terminal as a control character.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

WIDEST = 64
"""Columns of the screen that a cell takes at most, unless it stands last; a label of a host name has 63."""
GAP = "  "
CUT = "…"


def format_table(rows: Sequence[Sequence[str]], alignment: str = "<", indent: str = "") -> Iterator[str]:
    """Yield one line a row; all rows have as many cells as the first.

    `alignment` has "<" or ">" for each column, and its last character also stands for those that follow.  A cell
    wider than WIDEST is cut, but for the last one of a row that is aligned to the left: nothing stands behind it.
    """
    if not rows:
        return
    places = alignment.ljust(len(rows[0]), alignment[-1])
    is_open = places[-1] == "<"
    shown = [_prepare(row, is_open) for row in rows]
    widths = [max(map(display_width, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        cells = (_pad(*each) for each in zip(row, widths, places, strict=False))
        yield (indent + GAP.join(cells)).rstrip()


def display_width(text: str) -> int:
    """Count the columns of the screen that a printable text takes (Unicode Standard Annex 11)."""
    return sum(_width(letter) for letter in text)


def escape(text: str) -> str:
    """Replace what is not printable, control and direction characters too, by Python's escape sequences."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def cut(text: str, columns: int) -> str:
    """Shorten a text to so many columns of the screen, at least 1; an ellipsis stands for what is left out."""
    if display_width(text) <= columns:
        return text
    kept, room = "", columns - 1
    for letter in text:
        room -= _width(letter)
        if room < 0:
            break
        kept += letter
    return kept + CUT


def _prepare(row: Sequence[str], is_open: bool) -> list[str]:
    last = len(row) - 1 if is_open else len(row)
    cells = map(escape, row)
    return [cell if place == last else cut(cell, WIDEST) for place, cell in enumerate(cells)]


def _pad(cell: str, width: int, place: str) -> str:
    blank = " " * (width - display_width(cell))
    return cell + blank if place == "<" else blank + cell


def _width(letter: str) -> int:
    if unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1
