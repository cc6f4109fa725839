"""Runs one episode: the same one gives the same trace, every time and everywhere."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import trio

from overlayd.core.leases.store import CONFIG
from overlayd.testing.scheduling import run_seeded
from overlayd.testing.simulation.faults import clean_up, config_of, strike
from overlayd.testing.simulation.invariants import QUIET, Breach, Invariants
from overlayd.testing.simulation.scenario import Scenario
from overlayd.testing.simulation.world import SimulatedWorld
from overlayd.testing.trace import Trace

LOOK = 2.0
"""Seconds between two looks, if nothing else is said."""


@dataclass(frozen=True, slots=True)
class ScenarioOutcome:
    """`breach` is the first promise that was broken, None if all were kept."""

    scenario: Scenario
    breach: Breach | None
    trace: Trace


def run_scenario(scenario: Scenario, look: float = LOOK) -> ScenarioOutcome:
    """Live through it; what takes its time is looked at every `look` seconds."""
    invariants = Invariants(look)

    async def main() -> Trace:
        with tempfile.TemporaryDirectory(dir=_memory()) as home:
            async with trio.open_nursery() as network:
                world = SimulatedWorld(scenario, Path(home), network)
                invariants.watch_over(world)
                with invariants.over:
                    await _live_through(world, invariants)
                network.cancel_scope.cancel()
        return world.trace

    trace = run_seeded(main, scenario.seed, [invariants])
    return ScenarioOutcome(scenario, invariants.breach, trace)


async def _live_through(world: SimulatedWorld, invariants: Invariants) -> None:
    await world.put(CONFIG, config_of(world.scenario))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(invariants.look)
        for host in world.hosts:
            await world.start(host)
        async with trio.open_nursery() as faults:
            for fault in world.scenario.faults:
                faults.start_soon(strike, world, fault)
        await clean_up(world)
        await trio.sleep(QUIET + 15)
        with trio.move_on_after(2 * world.scenario.ttl + QUIET):
            while invariants.find_unwell():  # noqa: ASYNC110  # nobody tells when all is well
                await trio.sleep(1)
        await invariants.look_once()
        invariants.all_are_well()
        nursery.cancel_scope.cancel()


def _memory() -> str | None:
    """Files that are gone in a moment need no disk."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None
