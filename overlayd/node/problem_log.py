"""The problems of this moment, by who found them; each is logged once when it comes and once when it goes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from overlayd.core.status.problem import Problem

log = logging.getLogger("overlayd.problems")


class ProblemLog:
    """A source replaces all of its own problems at once and never touches another's."""

    def __init__(self) -> None:
        self._by_source: dict[str, frozenset[Problem]] = {}
        self._decided: set[str] = set()

    def replace(self, source: str, problems: Iterable[Problem]) -> None:
        before, after = self._by_source.get(source, frozenset()), frozenset(problems)
        self._by_source[source] = after
        codes = {problem.code for problem in before}
        for problem in sorted(after - before):
            if problem.code in codes:
                continue  # the same trouble in other words: status has them
            log.warning(problem.text, extra={"code": problem.code, "remedy": problem.remedy})
        for code in sorted(codes - {problem.code for problem in after}):
            log.info("problem is gone", extra={"code": code})

    def replace_decided(self, problems: Mapping[str, Iterable[Problem]]) -> None:
        """Replace the problems of every source that a Decision speaks for, also of those it no longer names."""
        for source in self._decided | problems.keys():
            self.replace(source, problems.get(source, ()))
        self._decided |= problems.keys()

    def all(self) -> tuple[Problem, ...]:
        return tuple(sorted(set().union(*self._by_source.values())))
