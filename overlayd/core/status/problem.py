"""A problem: what is wrong, in words, and what mends it."""

from __future__ import annotations

from dataclasses import dataclass

from overlayd.core.status.registry import REGISTRY, ProblemCode


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """`code` is one of the registry's, to search the documentation for; any other raises ValueError.

    `remedy` is a command or a sentence, "" where time alone mends it.
    """

    code: str
    text: str
    remedy: str = ""

    def __post_init__(self) -> None:
        if self.code not in REGISTRY:
            raise ValueError(f"{self.code!r} is not in the registry of problem codes")

    @property
    def meaning(self) -> ProblemCode:
        """What the registry says about all problems of this kind."""
        return REGISTRY[self.code]

    def __str__(self) -> str:
        return f"{self.text}. {self.remedy}" if self.remedy else self.text
