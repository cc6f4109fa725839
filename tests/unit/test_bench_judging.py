"""Verdicts follow from ratios within a round, and a bench with a slow baseline is void."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlayd.bench.judging import GOALS, Goal, GoalOutcome, find_median, find_ratio, judge
from overlayd.bench.model import USUAL, BenchPlan, Measure, Mode, Sample, Turn, WireSize
from overlayd.bench.schedule import turns
from overlayd.cli import main

FAST = WireSize.SUPERPACKETS


def sample(number: int, mode: Mode, figures: dict[Measure, float], wire: WireSize = FAST) -> Sample:
    return Sample(Turn(number, wire, mode), figures)


def tcp(mode: Mode, *figures: float) -> list[Sample]:
    return [sample(number, mode, {Measure.TCP_1: figure}) for number, figure in enumerate(figures)]


def ratio(samples: Sequence[Sample]) -> float | None:
    return find_ratio(samples, FAST, Measure.TCP_1, Mode.UDP_C, Mode.PLAIN)


def test_a_ratio_is_the_median_of_those_within_a_round() -> None:
    assert ratio(tcp(Mode.UDP_C, 80, 10, 30) + tcp(Mode.PLAIN, 10, 1, 5)) == 8


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=7), st.floats(0.5, 20))
def test_a_machine_that_drifts_between_rounds_changes_no_ratio(speeds: list[float], factor: float) -> None:
    samples = tcp(Mode.UDP_C, *(factor * speed for speed in speeds)) + tcp(Mode.PLAIN, *speeds)
    assert ratio(samples) == pytest.approx(factor)


def test_only_rounds_with_both_count_and_none_is_no_ratio() -> None:
    assert ratio(tcp(Mode.UDP_C, 8, 100) + tcp(Mode.PLAIN, 2)) == 4
    assert ratio(tcp(Mode.UDP_C, 8)) is None
    assert ratio(tcp(Mode.UDP_C, 8) + tcp(Mode.PLAIN, 0)) is None
    other_wire = [sample(0, Mode.PLAIN, {Measure.TCP_1: 1}, WireSize.MTU_SIZED)]
    assert ratio(tcp(Mode.UDP_C, 8) + other_wire) is None


def test_a_median_is_of_all_rounds() -> None:
    assert find_median(tcp(Mode.VXLAN, 1, 7, 3), FAST, Measure.TCP_1, Mode.VXLAN) == 3
    assert find_median([], FAST, Measure.TCP_1, Mode.VXLAN) is None


@pytest.mark.parametrize("goal", GOALS, ids=lambda goal: f"{goal.mode} {goal.against} {goal.measure} {goal.wire}")
def test_each_goal_is_met_on_its_own_side_of_its_factor(goal: Goal) -> None:
    less, more = goal.factor * 0.99, goal.factor * 1.01
    assert goal.is_met_by(goal.factor)
    assert (goal.is_met_by(less), goal.is_met_by(more)) == (
        (False, True) if goal.measure.quantity.more_is_better else (True, False)
    )


def honest_round(udp: float) -> list[Sample]:
    figures = {
        Mode.HOST_GW: {Measure.TCP_1: 20e9, Measure.PACKETS_64: 100e3},
        Mode.PLAIN: {Measure.TCP_1: 1e9, Measure.PACKETS_64: 60e3},
        Mode.UDP_C: {Measure.TCP_1: udp},
    }
    return [sample(0, mode, its) for mode, its in figures.items()]


def test_a_bench_is_met_or_missed() -> None:
    assert judge(honest_round(udp=8e9)).outcome is GoalOutcome.MET
    missed = judge(honest_round(udp=6e9))
    assert missed.outcome is GoalOutcome.MISSED
    assert [(verdict.goal.factor, verdict.ratio, verdict.is_met) for verdict in missed.goals] == [(7, 6, False)]


@pytest.mark.parametrize("baseline", [mode for mode in Mode if mode.setup.baseline is not None])
@pytest.mark.parametrize("slow", [{Measure.TCP_1: 0.3e9}, {Measure.PACKETS_64: 40e3}])
def test_slow_baseline_voids_the_bench_however_fast_the_others_look(
    baseline: Mode, slow: dict[Measure, float]
) -> None:
    good, _, udp = honest_round(udp=100e9)
    fast = {Measure.TCP_1: 8e9, Measure.PACKETS_64: 60e3}
    assert judge([good, sample(0, baseline, fast), udp]).outcome is not GoalOutcome.VOID
    assert judge([good, sample(0, baseline, fast | slow), udp]).outcome is GoalOutcome.VOID


def test_baseline_is_not_judged_without_host_gw() -> None:
    judgement = judge(tcp(Mode.UDP_C, 8) + tcp(Mode.PLAIN, 1))
    assert judgement.honesty == ()
    assert judgement.outcome is GoalOutcome.MET


def test_baselines_of_a_usual_bench_are_those_of_its_goals() -> None:
    judged = {goal.against for goal in GOALS if goal.mode in USUAL}
    assert judged <= set(USUAL)
    assert Mode.HOST_GW in USUAL


def test_help_names_the_modes_that_a_usual_bench_leaves_out(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "datapath", "--help"])
    told = " ".join(capsys.readouterr().out.split()).partition("all but ")[2].partition(")")[0]
    assert set(told.replace(" and ", ", ").split(", ")) == {mode.value for mode in Mode if mode not in USUAL}


def test_modes_take_turns() -> None:
    plan = BenchPlan(modes=(Mode.VXLAN, Mode.PLAIN), wires=(FAST,), rounds=3)
    assert [(turn.round, turn.mode) for turn in turns(plan)] == [
        *((0, Mode.VXLAN), (0, Mode.PLAIN)),
        *((1, Mode.PLAIN), (1, Mode.VXLAN)),
        *((2, Mode.VXLAN), (2, Mode.PLAIN)),
    ]
    assert len(set(turns(BenchPlan()))) == 3 * len(WireSize) * len(USUAL)
