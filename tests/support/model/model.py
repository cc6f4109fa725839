"""The model of one scenario: its parts, what can happen, what is the same, and what must be true."""

from __future__ import annotations

from collections.abc import Iterator

from support.model.canon import Canon, Plain
from support.model.essence import plain
from support.model.invariants import Invariants
from support.model.moves import Moves
from support.model.parts import Parts
from support.model.world import Label, Rules, Scenario, World

DAEMON = Rules()


class Model:
    def __init__(self, scenario: Scenario, rules: Rules = DAEMON, plain: Plain = plain) -> None:
        self.scenario = scenario
        self.rules = rules
        self.parts = Parts(scenario, rules)
        invariants = Invariants(self.parts)
        self._moves = Moves(self.parts)
        self.canonical = Canon(self.parts, plain).canonical
        self.find_violation = invariants.find_violation
        self.held = invariants.held

    def initial(self) -> World:
        return self.canonical(self._moves.initial())

    def successors(self, world: World) -> Iterator[tuple[Label, World]]:
        """Not in canonical form."""
        return self._moves.successors(world)
