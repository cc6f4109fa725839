"""A bell: rung any number of times, it wakes its one listener once, and says what for."""

from __future__ import annotations

import trio


class WakeUp:
    """Level-triggered: a ring says "look again", and a word on why, for the metrics alone."""

    def __init__(self) -> None:
        self._rung = trio.Event()
        self._reasons: set[str] = set()

    def ring(self, reason: str = "") -> None:
        self._reasons.add(reason)
        self._rung.set()

    def take(self) -> frozenset[str]:
        """Stop the bell; return why it was rung since it was silent last, nothing if it was not."""
        reasons = frozenset(self._reasons)
        self._reasons.clear()
        self._rung = trio.Event()
        return reasons

    async def wait(self, at_most: float | None = None) -> frozenset[str]:
        """Return once it was rung, or after `at_most` seconds; the bell is silent then."""
        with trio.move_on_after(float("inf") if at_most is None else max(0.0, at_most)):
            await self._rung.wait()
        return self.take()
