"""A problem: what is wrong, in words, and what mends it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """`code` is a fixed hyphenated name to search the documentation for; `remedy` a command or a sentence,
    "" where time alone mends it."""

    code: str
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.text}. {self.remedy}" if self.remedy else self.text
