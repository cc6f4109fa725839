"""The model of one scenario: its parts, what can happen, what is the same, and what must be true."""

from __future__ import annotations

from collections.abc import Iterator

from support.model.interning import InternTable
from support.model.invariants import ModelInvariants
from support.model.reduction import plain
from support.model.symmetry import Plain, SymmetryReduction
from support.model.transitions import Transitions
from support.model.world import Label, ModelScenario, ModelWorld, Rules

DAEMON = Rules()


class Model:
    def __init__(self, scenario: ModelScenario, rules: Rules = DAEMON, plain: Plain = plain) -> None:
        self.scenario = scenario
        self.rules = rules
        self.parts = InternTable(scenario, rules)
        invariants = ModelInvariants(self.parts)
        self._moves = Transitions(self.parts)
        self.canonical = SymmetryReduction(self.parts, plain).canonical
        self.find_violation = invariants.find_violation
        self.held = invariants.held

    def initial(self) -> ModelWorld:
        return self.canonical(self._moves.initial())

    def successors(self, world: ModelWorld) -> Iterator[tuple[Label, ModelWorld]]:
        """Not in canonical form."""
        return self._moves.successors(world)
