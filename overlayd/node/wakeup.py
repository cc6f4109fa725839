"""A bell: rung any number of times, it wakes its one listener once."""

from __future__ import annotations

import trio


class WakeUp:
    """Level-triggered: what rings says nothing but "look again"."""

    def __init__(self) -> None:
        self._rung = trio.Event()

    def ring(self) -> None:
        self._rung.set()

    async def wait(self, at_most: float | None = None) -> None:
        """Return once it was rung since the last return, or after `at_most` seconds."""
        with trio.move_on_after(float("inf") if at_most is None else max(0.0, at_most)):
            await self._rung.wait()
        self._rung = trio.Event()
