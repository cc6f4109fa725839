"""A failing scenario is made small, and drawn."""

from __future__ import annotations

import pytest

from overlayd.core.leases.keeper import recognition
from overlayd.testing.diagram import draw
from overlayd.testing.simulation.report import explain
from overlayd.testing.simulation.run import run_scenario
from overlayd.testing.simulation.scenario import Fault, Scenario
from overlayd.testing.simulation.shrink import shrink
from overlayd.testing.trace import TraceEntry, TraceKind

FAULTS = tuple(Fault("partition", 40.0 + number, 1.0, 1 + number % 3, number) for number in range(9))


def test_only_what_is_needed_is_left() -> None:
    tried = []

    def fails(scenario: Scenario) -> bool:
        tried.append(scenario)
        return {FAULTS[2], FAULTS[7]} <= {*scenario.faults}

    smallest = shrink(Scenario(0, 8, 30, None, FAULTS), fails)
    assert smallest.faults == (FAULTS[2], FAULTS[7])
    assert smallest.nodes == 3, "the highest number that a fault names"
    assert len(tried) < 40


def test_what_fails_without_faults_needs_none() -> None:
    assert shrink(Scenario(0, 8, 30, None, FAULTS), lambda scenario: scenario.nodes >= 2) == Scenario(
        0, 2, 30, None, ()
    )


def test_a_diagram_has_a_column_for_each_and_a_line_for_each_step() -> None:
    entries = [
        TraceEntry(1.0, TraceKind.BEGINS, "n2", "", "stopped"),
        TraceEntry(1.5, TraceKind.MESSAGE, "n1", "store", "create 10.244.1.0-24", 0.01),
        TraceEntry(2.0, TraceKind.MESSAGE, "store", "n1", "committed @3", 1.25),
        TraceEntry(2.5, TraceKind.LOST, "n1", "store", "keepalive 1"),
        TraceEntry(3.0, TraceKind.NOTE, "n1", "", "held 10.244.1.0/24"),
        TraceEntry(3.5, TraceKind.ENDS, "n2", "", "stopped"),
        TraceEntry(4.0, TraceKind.NOTE, "n9", "", "not in this picture"),
    ]
    assert draw(entries, ["n1", "n2", "store"]).splitlines() == [
        "              n1       n2     store",
        "   1.000      │        ▼        │     n2: stopped …",
        "   1.500      │────────╂───────▶│     create 10.244.1.0-24",
        "   2.000      │◀───────╂────────│     committed @3 (1.2 s under way)",
        "   2.500      │────────✗        │     keepalive 1",
        "   3.000      ●        ┃        │     n1: held 10.244.1.0/24",
        "   3.500      │        ▲        │     n2: … stopped: over",
    ]
    assert "… 4 steps before …" in draw(entries, ["n1", "n2", "store"], last=2)


def test_a_failure_is_told_with_seed_faults_and_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recognition, "margin", lambda ttl: -1000.0)
    needless = Fault("garbage-key", 41.0, 5.0, 1, 3)
    faults = (needless, *(Fault("stop", 100.0 * node, 70.0, node, 0) for node in (1, 2, 3)))
    outcome = run_scenario(Scenario(5, 3, 30, 1, faults))
    text = explain(outcome)
    assert text.startswith("held-once broken at ")
    assert " nodes, TTL 30 s, 1 subnets\n  stop n" in text
    assert "garbage" not in text
    assert "stopped …" in text
    assert "─▶│     create 10.244." in text
