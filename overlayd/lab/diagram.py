"""Draws a lab: each node as a box with its subnet and pods, on the underlay that joins them.

Pure: lines of pieces, each a text with its style (named as rich names them, "" for plain).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from overlayd.lab.model import UNDERLAY
from overlayd.lab.overview import NodeRow, Overview

Piece = tuple[str, str]
Line = tuple[Piece, ...]

MOST_PODS = 6
"""Pods drawn in one box; the rest are counted."""
_GAP = "  "
_DROP = 3
"""Columns from the right edge of a box to the wire below it."""


def diagram(view: Overview, columns: int) -> Iterator[Line]:
    """Draw the lab in rows of as many boxes as fit into `columns` of the screen."""
    contents = [_content(node) for node in view.nodes]
    inner = max(_length(line) for lines in contents for line in lines)
    inner = max(inner, *(len(node.underlay) + 1 + _DROP for node in view.nodes))
    height = max(map(len, contents))
    per_row = max(1, (columns + len(_GAP)) // (inner + 4 + len(_GAP)))
    for start in range(0, len(contents), per_row):
        nodes = view.nodes[start : start + per_row]
        yield _joined(
            [(("╭─ ", "dim"), (n.name, "bold"), (_bar(inner - len(n.name)) + "╮", "dim")) for n in nodes]
        )
        for k in range(height):
            yield _joined([_inside(lines, k, inner) for lines in contents[start : start + per_row]])
        yield _joined([_bottom(node, inner) for node in nodes])
        drop = "━" * (inner + 3 - _DROP) + "┷" + "━" * _DROP
        yield ((("━" * len(_GAP)).join([drop] * len(nodes)), "cyan"),)
    yield (("underlay", "cyan"), (f" {UNDERLAY}, with {' and '.join(view.etcd)} on it", "dim"))


def _content(node: NodeRow) -> list[Line]:
    lines: list[Line] = [((node.subnet, "bold cyan") if node.subnet else ("no subnet", "red"),)]
    for pod in node.pods[:MOST_PODS]:
        lines.append(((f"{pod.name}  ", ""), (pod.address or "–", "dim")))
    if len(node.pods) > MOST_PODS:
        lines.append(((f"and {len(node.pods) - MOST_PODS} more pods", "dim"),))
    return lines


def _inside(lines: Sequence[Line], k: int, inner: int) -> Line:
    line = lines[k] if k < len(lines) else ()
    blank = inner - _length(line)
    return (("│ ", "dim"), *line, (" " * blank + " │", "dim"))


def _bottom(node: NodeRow, inner: int) -> Line:
    bar = _bar(inner - len(node.underlay))
    return (("╰─ ", "dim"), (node.underlay, ""), (f"{bar[:-_DROP]}┬{bar[1 - _DROP :]}╯", "dim"))


def _length(line: Line) -> int:
    return sum(len(text) for text, _ in line)


def _bar(length: int) -> str:
    return " " + "─" * (length - 1)


def _joined(boxes: Sequence[Line]) -> Line:
    pieces: list[Piece] = []
    for box in boxes:
        pieces += [*box, (_GAP, "")]
    return tuple(pieces[:-1])
