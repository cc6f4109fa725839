"""Renders a report as text: lines of styled pieces, for a terminal or a file.  Pure.

There is a line for each check with the failed pairs and their reasons below it, then one matrix of all pairs
(sources down the side, targets across), and the verdict last.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

from overlayd.lab.suite.outcome import CheckReport, CheckResult, PairNames
from overlayd.lab.suite.topology import Topology

GOOD, BAD, DIM, STRONG = "green", "bold red", "dim", "bold"
"""Styles, named as rich names them; "" is plain text."""

_MOST_FAILURES = 24
"""Failing pairs listed under one check; the JSON form has them all."""
_FULL, _NOTHING = "●", "·"


class Piece(NamedTuple):
    text: str
    style: str = ""


Line = tuple[Piece, ...]


def plain(line: Line) -> str:
    return "".join(piece.text for piece in line).rstrip()


def heading(topology: Topology) -> Iterator[Line]:
    spec = topology.spec
    size = f"{len(topology.nodes)} nodes, {len(topology.pods)} pods"
    yield (Piece(f"lab {spec.name}", STRONG), Piece(f": {spec.backend} over {size}, network {spec.network}"))
    yield ()


def lines_of_check(result: CheckResult) -> Iterator[Line]:
    """Render one check: its line, and one for every pair that failed."""
    name = Piece(f"  {result.name:<18}")
    if result.not_applicable is not None:
        yield name, Piece(f"{'–':^11}not applicable: {result.not_applicable.reason}", DIM)
        return
    share = f"{result.passed}/{len(result.outcomes)}"
    failures = result.failures
    yield name, Piece(f"{share:^11}", BAD if failures else GOOD), Piece(result.title, "" if failures else DIM)
    for (source, target), failure in list(failures.items())[:_MOST_FAILURES]:
        yield Piece(f"      {source} → {target}", BAD), Piece(f": {failure.reason}")
    if len(failures) > _MOST_FAILURES:
        yield (Piece(f"      and {len(failures) - _MOST_FAILURES} more: --json lists them all", DIM),)


def verdict(report: CheckReport) -> Iterator[Line]:
    failed = [result.name for result in report.results if result.failures]
    passed = [result.name for result in report.results if result.passed and not result.failures]
    skipped = [result.name for result in report.results if result.not_applicable is not None]
    rest = f"; not applicable here: {', '.join(skipped)}" if skipped else ""
    if failed:
        which = f"{len(failed)} of {len(failed) + len(passed)} checks failed: {', '.join(failed)}"
        yield Piece(which, BAD), Piece(rest, DIM)
    elif passed:
        number = "1 check" if len(passed) == 1 else f"all {len(passed)} checks"
        yield Piece(f"{number} passed", GOOD), Piece(rest, DIM)
    else:
        yield Piece("nothing was checked", BAD), Piece(rest, DIM)


def matrix(report: CheckReport, width: int) -> Iterator[Line]:
    """Render all endpoints, and how many checks failed between each two.

    Where it would be wider than `width` columns, the names across are written upright, and if that is still too
    wide, the targets come in several blocks.
    """
    asked = _failed_checks(report)
    ends = dict.fromkeys([source for source, _ in asked] + [target for _, target in asked])
    sources = [end for end in ends if any(source == end for source, _ in asked)]
    targets = [end for end in ends if any(target == end for _, target in asked)]
    if not asked:
        return
    side = max(map(len, sources)) + 4
    column = max(map(len, targets)) + 2
    upright = side + column * len(targets) > width
    if upright:
        column = 2 if side + 2 * len(targets) <= width else 1
    fitting = max((width - side) // column, 1)
    for start in range(0, len(targets), fitting):
        block = targets[start : start + fitting]
        yield from _header(block, side, column, upright)
        for source in sources:
            cells = (_cell(asked.get((source, target)), column, upright) for target in block)
            yield Piece(f"  {source:<{side - 2}}"), *cells
        yield ()
    legend = f"  {_FULL} every check of this pair passed   1 2 … so many failed   {_NOTHING} nothing to check"
    yield (Piece(legend, DIM),)


def _failed_checks(report: CheckReport) -> dict[PairNames, list[str]]:
    """Map each pair to the names of the checks that failed for it: none where all passed."""
    asked: dict[PairNames, list[str]] = {}
    for result in report.results:
        failures = result.failures
        for pair in result.outcomes:
            failed = asked.setdefault(pair, [])
            if pair in failures:
                failed.append(result.name)
    return asked


def _header(names: list[str], side: int, column: int, upright: bool) -> Iterator[Line]:
    if not upright:
        yield Piece(" " * side), Piece("".join(f"{name:^{column}}" for name in names), STRONG)
        return
    words = [name.rstrip("0123456789-") for name in names]
    numbers = [name.removeprefix(word) for name, word in zip(names, words, strict=True)]
    kinds = [(word, column * len(list(same))) for word, same in groupby(words)]
    groups = "".join(f"{word[: width - 1]:<{width}}" for word, width in kinds)
    yield Piece(" " * side), Piece(groups, STRONG)
    height = max(map(len, numbers))
    for row in range(height):
        digits = "".join(f"{number.rjust(height)[row]:<{column}}" for number in numbers)
        yield Piece(" " * side), Piece(digits, DIM)


def _cell(failed: list[str] | None, column: int, upright: bool) -> Piece:
    mark, style = (_NOTHING, DIM) if failed is None else (_FULL, GOOD)
    if failed:
        mark, style = str(min(len(failed), 9)), BAD
    return Piece(f"{mark:<{column}}" if upright else f"{mark:^{column}}", style)
