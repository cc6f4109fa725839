"""Runs one scenario; the same one gives the same trace on every run and machine."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import trio

from overlayd.core.leases.store import CONFIG
from overlayd.testing.scheduling import run_seeded
from overlayd.testing.simulation.faults import clean_up, config_of, inject
from overlayd.testing.simulation.invariants import QUIET, Breach, Invariants
from overlayd.testing.simulation.scenario import Scenario
from overlayd.testing.simulation.world import SimulatedWorld
from overlayd.testing.trace import Trace

LOOK = 2.0
"""Seconds between two periodic checks, by default."""


@dataclass(frozen=True, slots=True)
class ScenarioOutcome:
    """The outcome; `breach` is the first invariant that was broken, None if all held."""

    scenario: Scenario
    breach: Breach | None
    trace: Trace


def run_scenario(scenario: Scenario, look: float = LOOK) -> ScenarioOutcome:
    """Run a scenario; the periodic invariants are checked every `look` seconds."""
    invariants = Invariants(look)

    async def main() -> Trace:
        with tempfile.TemporaryDirectory(dir=_memory()) as home:
            async with trio.open_nursery() as network:
                world = SimulatedWorld(scenario, Path(home), network)
                invariants.watch(world)
                with invariants.over:
                    await _inject_all(world, invariants)
                network.cancel_scope.cancel()
        return world.trace

    trace = run_seeded(main, scenario.seed, [invariants])
    return ScenarioOutcome(scenario, invariants.breach, trace)


async def _inject_all(world: SimulatedWorld, invariants: Invariants) -> None:
    await world.put(CONFIG, config_of(world.scenario))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(invariants.look)
        for host in world.hosts:
            await world.start(host)
        async with trio.open_nursery() as faults:
            for fault in world.scenario.faults:
                faults.start_soon(inject, world, fault)
        await clean_up(world)
        await trio.sleep(QUIET + 15)
        with trio.move_on_after(2 * world.scenario.ttl + QUIET):
            while invariants.find_unhealthy():  # noqa: ASYNC110  # no event tells when all are healthy
                await trio.sleep(1)
        await invariants.look_once()
        invariants.all_are_healthy()
        nursery.cancel_scope.cancel()


def _memory() -> str | None:
    """Find a directory in memory: these files are short-lived."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None
