"""Drives a claimer: one command at a time, each answered by an event.

All decisions are the claimer's (`overlayd.core.leases.claimer`), and the store's side carries them out; here is
only the waiting, the clock and chance.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from overlayd.core.leases.claimer import Claimer
from overlayd.core.leases.source import Claims
from overlayd.core.leases.tenure import Tenure
from overlayd.node.wakeup import WakeUp


class LeaseRunner:
    """Keeps `claimer` up to date.

    `stepped` is called with the tenure before and after every step.  Ring `wake_up` when the claimer may see
    something new.
    """

    def __init__(
        self,
        claims: Claims,
        stepped: Callable[[Tenure, Tenure], None],
        clock: Callable[[], float],
        chance: random.Random,
    ) -> None:
        self.claimer: Claimer[Any, Any] = claims.start
        self.wake_up = WakeUp()
        self._claims = claims
        self._stepped = stepped
        self._clock = clock
        self._chance = chance
        self._stepped_at = clock()

    @property
    def tenure(self) -> Tenure:
        return self.claimer.tenure

    async def run(self) -> None:
        while True:
            command = self._step(self._claims.look())
            while command is not None:
                command = self._step(await self._claims.carry_out(command))
            at = self.claimer.wake_at(self._stepped_at)
            await self.wake_up.wait(None if at is None else at - self._clock())

    def _step(self, event: Any) -> Any:
        before, self._stepped_at = self.claimer.tenure, self._clock()
        self.claimer, command = self.claimer.step(event, self._stepped_at, self._chance.random())
        self._stepped(before, self.claimer.tenure)
        return command
