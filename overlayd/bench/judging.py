"""Judges samples: medians, ratios, and whether they meet their goals.

A ratio is the median of the ratios within each round, not the ratio of two medians: it compares what two modes
reached within the same minutes.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from overlayd.bench.model import Measure, Mode, Sample, WireSize


@dataclass(frozen=True)
class Goal:
    """A ratio to reach: `mode` at least `factor` times as much as `against`, or at most, where less is better."""

    mode: Mode
    measure: Measure
    against: Mode
    factor: float
    wire: WireSize = WireSize.SUPERPACKETS

    def is_met_by(self, ratio: float) -> bool:
        return ratio >= self.factor if self.measure.quantity.more_is_better else ratio <= self.factor


_RATES = (Measure.TCP_1, Measure.TCP_4, Measure.PACKETS_64, Measure.PACKETS_1400)


def _near(mode: Mode, against: Mode, rate: float, p50: float, p99: float) -> tuple[Goal, ...]:
    """List the goals for a mode that does the same as another one, and a little more."""
    return (
        Goal(mode, Measure.RTT_P50, against, p50),
        Goal(mode, Measure.RTT_P99, against, p99),
        *(Goal(mode, measure, against, rate) for measure in _RATES),
    )


GOALS = (
    *_near(Mode.VXLAN, Mode.VXLAN_PLAIN, 0.97, 1.03, 1.1),
    *_near(Mode.VXLAN_1K, Mode.VXLAN_PLAIN, 0.95, 1.05, 1.1),
    *_near(Mode.VXLAN_10K, Mode.VXLAN_PLAIN, 0.95, 1.05, 1.1),
    *_near(Mode.VXLAN_MASQ, Mode.NAT_PLAIN, 0.95, 1.05, 1.1),
    *_near(Mode.VXLAN_MASQ, Mode.VXLAN_PLAIN, 0.95, 1.05, 1.1),
    Goal(Mode.UDP_C, Measure.TCP_1, Mode.FLANNEL_LIKE, 12),
    Goal(Mode.UDP_C, Measure.PACKETS_64, Mode.FLANNEL_LIKE, 2.5),
    Goal(Mode.UDP_C, Measure.PACKETS_1400, Mode.FLANNEL_LIKE, 3),
    Goal(Mode.UDP_C, Measure.RTT_P50, Mode.FLANNEL_LIKE, 1.3),
    Goal(Mode.UDP_C, Measure.TCP_1, Mode.PLAIN, 7),
    Goal(Mode.UDP_C, Measure.TCP_1, Mode.VXLAN_PLAIN, 0.6),
    Goal(Mode.UDP_C, Measure.TCP_1, Mode.VXLAN_PLAIN, 1.0, WireSize.MTU_SIZED),
    Goal(Mode.UDP_PYTHON, Measure.TCP_1, Mode.FLANNEL_LIKE, 1.8),
    Goal(Mode.UDP_PYTHON, Measure.PACKETS_64, Mode.FLANNEL_LIKE, 2),
)
"""What vxlan with its checks, and udp, must reach."""

HONESTY = (
    Goal(Mode.VXLAN_PLAIN, Measure.TCP_1, Mode.HOST_GW, 0.35),
    Goal(Mode.VXLAN_PLAIN, Measure.PACKETS_64, Mode.HOST_GW, 0.55),
    Goal(Mode.NAT_PLAIN, Measure.TCP_1, Mode.HOST_GW, 0.3),
    Goal(Mode.NAT_PLAIN, Measure.PACKETS_64, Mode.HOST_GW, 0.45),
    Goal(Mode.FLANNEL_LIKE, Measure.TCP_1, Mode.HOST_GW, 0.02),
    Goal(Mode.FLANNEL_LIKE, Measure.PACKETS_64, Mode.HOST_GW, 0.5),
    Goal(Mode.PLAIN, Measure.TCP_1, Mode.HOST_GW, 0.03),
    Goal(Mode.PLAIN, Measure.PACKETS_64, Mode.HOST_GW, 0.55),
)
"""What the baselines themselves must reach: against a slow one every datapath looks fast."""


@dataclass(frozen=True)
class GoalVerdict:
    goal: Goal
    ratio: float

    @property
    def is_met(self) -> bool:
        return self.goal.is_met_by(self.ratio)


class GoalOutcome(enum.IntEnum):
    """The exit status of a bench."""

    MET = 0
    """Every ratio that could be judged meets its goal."""
    MISSED = 1
    VOID = 3
    """A baseline was too slow to compare with.  (2 is for a command that can't be understood.)"""


@dataclass(frozen=True)
class Judgement:
    """The verdicts.  `honesty` is empty where host-gw or every baseline did not run."""

    goals: tuple[GoalVerdict, ...]
    honesty: tuple[GoalVerdict, ...]

    @property
    def outcome(self) -> GoalOutcome:
        if not all(verdict.is_met for verdict in self.honesty):
            return GoalOutcome.VOID
        return GoalOutcome.MET if all(verdict.is_met for verdict in self.goals) else GoalOutcome.MISSED


def judge(samples: Sequence[Sample]) -> Judgement:
    return Judgement(_verdicts(samples, GOALS), _verdicts(samples, HONESTY))


def _verdicts(samples: Sequence[Sample], goals: Sequence[Goal]) -> tuple[GoalVerdict, ...]:
    ratios = [(g, find_ratio(samples, g.wire, g.measure, g.mode, g.against)) for g in goals]
    return tuple(GoalVerdict(goal, ratio) for goal, ratio in ratios if ratio is not None)


def find_ratio(
    samples: Sequence[Sample], wire: WireSize, measure: Measure, mode: Mode, against: Mode
) -> float | None:
    """Find how many times as much one mode reached as another; None if there is no round with both."""
    own, other = figures(samples, wire, measure, mode), figures(samples, wire, measure, against)
    ratios = [own[number] / other[number] for number in own.keys() & other.keys() if other[number] > 0]
    return median(ratios) if ratios else None


def find_median(samples: Sequence[Sample], wire: WireSize, measure: Measure, mode: Mode) -> float | None:
    """Find a mode's median over all rounds; None if it did not run."""
    own = figures(samples, wire, measure, mode)
    return median(own.values()) if own else None


def figures(samples: Sequence[Sample], wire: WireSize, measure: Measure, mode: Mode) -> dict[int, float]:
    """Select the figures of one mode, by round."""
    return {
        sample.turn.round: sample.figures[measure]
        for sample in samples
        if sample.turn.wire is wire and sample.turn.mode is mode and measure in sample.figures
    }
