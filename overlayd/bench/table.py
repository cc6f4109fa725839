"""Renders a bench as text: the ratios first, as they are judged, then all medians, then the surroundings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from overlayd.bench.judging import GoalOutcome, GoalVerdict, Judgement, find_median
from overlayd.bench.model import BenchRun, Measure, Mode, Surroundings, WireSize
from overlayd.core.text.table import format_table

SUMMARIES = {
    GoalOutcome.MET: "every ratio that was measured meets its goal",
    GoalOutcome.MISSED: "a ratio misses its goal",
    GoalOutcome.VOID: "VOID: a baseline is too slow, so nothing can be compared with it",
}
BUSY = 0.5
"""The load average from which on a note warns of other work on the machine."""


def render(run: BenchRun, judgement: Judgement) -> str:
    return "\n".join(_lines(run, judgement))


def _lines(run: BenchRun, judgement: Judgement) -> Iterator[str]:
    if judgement.goals:
        yield "ratios"
        yield from _align([_verdict_row(verdict) for verdict in judgement.goals])
        yield ""
    if judgement.honesty:
        yield "are the baselines fast enough?"
        yield from _align([_verdict_row(verdict) for verdict in judgement.honesty])
        yield ""
    if judgement.goals or judgement.honesty:
        yield SUMMARIES[judgement.outcome]
        yield ""
    for wire in run.plan.wires:
        yield f"{wire} wire, medians"
        yield from _align(_wire_rows(run, wire))
        yield ""
    yield from describe_plan(run)
    yield from describe(run.surroundings)


def _verdict_row(verdict: GoalVerdict) -> tuple[str, ...]:
    goal = verdict.goal
    quantity = goal.measure.quantity
    return (
        f"{goal.mode} ÷ {goal.against}",
        quantity.title,
        f"{goal.wire} wire",
        f"{verdict.ratio:.3g}",
        f"{'≥' if quantity.more_is_better else '≤'} {goal.factor:g}",
        "met" if verdict.is_met else "MISSED",
    )


def _wire_rows(run: BenchRun, wire: WireSize) -> list[tuple[str, ...]]:
    quantities = [measure.quantity for measure in Measure]
    return [
        ("", *(quantity.title for quantity in quantities)),
        ("", *(quantity.unit for quantity in quantities)),
        *((mode.value, *(_cell(run, wire, measure, mode) for measure in Measure)) for mode in run.plan.modes),
    ]


def _cell(run: BenchRun, wire: WireSize, measure: Measure, mode: Mode) -> str:
    value = find_median(run.samples, wire, measure, mode)
    return "–" if value is None else show(measure, value)


def show(measure: Measure, value: float) -> str:
    """Format a raw figure in the unit of its measure, without the unit."""
    return f"{value / measure.quantity.scale:.{measure.quantity.digits}f}"


def _align(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    return format_table(rows, alignment="<>", indent="  ")


def describe_plan(run: BenchRun) -> Iterator[str]:
    plan = run.plan
    rounds = "1 round" if plan.rounds == 1 else f"{plan.rounds} rounds"
    yield f"{rounds} in turns; TCP {plan.seconds} s each; loss-free: at most 1 in 100 lost"


def describe(place: Surroundings) -> Iterator[str]:
    yield (
        f"overlayd {place.overlayd}, Linux {place.kernel}, Python {place.python}, iperf3 {place.iperf3}, "
        f"{place.processors} processors, TCP {place.congestion_control}"
    )
    for mode, words in place.datapaths.items():
        yield f"{mode}: {words}"
    if place.load > BUSY:
        yield f"this machine had other work (load {place.load:.1f} before the start): the figures are less exact"
