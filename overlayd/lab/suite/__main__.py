"""`python -m overlayd.lab.suite [--json] [CHECK…]`, inside a lab.

Exit status 0: everything that applies passed; 1: something failed; 2: nothing could be checked.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import traceback
from collections.abc import Callable, Iterable

import trio

from overlayd.lab.snapshot import LabSnapshot, read_snapshot
from overlayd.lab.suite import render
from overlayd.lab.suite.catalogue import UnknownCheck, choose_checks
from overlayd.lab.suite.probing import Limits, NoAnswer
from overlayd.lab.suite.run import run
from overlayd.lab.suite.topology import NotReady, Topology


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m overlayd.lab.suite", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("checks", nargs="*", metavar="CHECK", help="the checks to run; all where none is named")
    args = parser.parse_args()
    show: Show = _ignore if args.json else _printer()
    try:
        checks = choose_checks(args.checks)
        topology = Topology.of(_read_snapshot())
        show(render.heading(topology))
        report = trio.run(run, topology, checks, Limits(), lambda result: show(render.lines_of_check(result)))
    except (UnknownCheck, NotReady, NoAnswer, OSError) as error:
        print(f"overlayd lab test: {error}", file=sys.stderr)
        return 2
    except BaseException as error:  # noqa: BLE001 - it is printed, and exit status 1 would claim a failed check
        if not _is_interrupt(error):
            traceback.print_exc()
        print("overlayd lab test: ended early; what is not listed was not checked", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps(report.as_json(), indent=2))
    else:
        show([()])
        show(render.matrix(report, shutil.get_terminal_size().columns))
        show([()])
        show(render.verdict(report))
    return report.exit_status


def _is_interrupt(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(KeyboardInterrupt) is not None
    return isinstance(error, KeyboardInterrupt)


def _read_snapshot() -> LabSnapshot:
    """Read the lab's snapshot.  Raises NotReady outside of a lab."""
    try:
        return read_snapshot()
    except FileNotFoundError as error:
        raise NotReady(f"{error.filename} is missing: this runs in a lab, by `overlayd lab test`") from error


Show = Callable[[Iterable[render.Line]], None]


def _ignore(lines: Iterable[render.Line]) -> None:
    pass


def _printer() -> Show:
    """Make a function that prints lines: in colour on a terminal, plain elsewhere."""
    if not sys.stdout.isatty():
        return lambda lines: print(*map(render.plain, lines), sep="\n", flush=True)
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)

    def show(lines: Iterable[render.Line]) -> None:
        for line in lines:
            console.print(Text.assemble(*line), soft_wrap=True)

    return show


if __name__ == "__main__":
    sys.exit(main())
