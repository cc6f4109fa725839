"""The results of checks, as values.

The rule of this file: a success must be shown.  A run in which no pair passed is not a success, and a result
without pairs has to say why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class CheckPassed:
    pass


@dataclass(frozen=True, slots=True)
class CheckFailed:
    """`reason` is the end of a sentence about the pair, as specific as possible."""

    reason: str


@dataclass(frozen=True, slots=True)
class CheckNotApplicable:
    """This lab cannot show it; `reason` says which lab could."""

    reason: str


PairNames = tuple[str, str]
"""The names of source and target."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check: an outcome for each of its pairs, or why it does not apply."""

    name: str
    title: str
    outcomes: Mapping[PairNames, CheckPassed | CheckFailed]
    not_applicable: CheckNotApplicable | None = None
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if bool(self.outcomes) is (self.not_applicable is not None):
            raise ValueError(f"{self.name}: either outcomes or a reason why there are none, not both or neither")

    @property
    def passed(self) -> int:
        return sum(isinstance(outcome, CheckPassed) for outcome in self.outcomes.values())

    @property
    def failures(self) -> dict[PairNames, CheckFailed]:
        return {pair: outcome for pair, outcome in self.outcomes.items() if isinstance(outcome, CheckFailed)}

    @property
    def word(self) -> str:
        if self.not_applicable is not None:
            return "not applicable"
        return "failed" if self.failures else "passed"


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The results of a run on a lab with a backend."""

    lab: str
    backend: str
    results: tuple[CheckResult, ...]

    @property
    def exit_status(self) -> int:
        """0: all that applies passed; 1: something failed; 2: nothing could be checked."""
        if any(result.failures for result in self.results):
            return 1
        return 0 if any(result.passed for result in self.results) else 2

    def as_json(self) -> dict[str, Any]:
        return {
            "lab": self.lab,
            "backend": self.backend,
            "exit_status": self.exit_status,
            "checks": [_result_as_json(result) for result in self.results],
        }


def _result_as_json(result: CheckResult) -> dict[str, Any]:
    record: dict[str, Any] = {"name": result.name, "title": result.title, "outcome": result.word}
    if result.not_applicable is not None:
        record["reason"] = result.not_applicable.reason
    record["seconds"] = round(result.seconds, 3)
    record["pairs"] = [
        {"from": source, "to": target, "passed": True}
        if isinstance(outcome, CheckPassed)
        else {"from": source, "to": target, "passed": False, "reason": outcome.reason}
        for (source, target), outcome in result.outcomes.items()
    ]
    return record
