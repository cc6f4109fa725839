"""Runs one episode: the same one gives the same trace, every time and everywhere."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import trio

from overlayd.core.store import CONFIG
from overlayd.testing.scheduling import run_seeded
from overlayd.testing.simulation.episode import Episode
from overlayd.testing.simulation.faults import clean_up, config_of, strike
from overlayd.testing.simulation.promises import QUIET, Breach, Promises
from overlayd.testing.simulation.world import World
from overlayd.testing.trace import Trace

LOOK = 2.0
"""Seconds between two looks, if nothing else is said."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """`breach` is the first promise that was broken, None if all were kept."""

    episode: Episode
    breach: Breach | None
    trace: Trace


def run_episode(episode: Episode, look: float = LOOK) -> Outcome:
    """Live through it; what takes its time is looked at every `look` seconds."""
    promises = Promises(look)

    async def main() -> Trace:
        with tempfile.TemporaryDirectory(dir=_memory()) as home:
            async with trio.open_nursery() as network:
                world = World(episode, Path(home), network)
                promises.watch_over(world)
                with promises.over:
                    await _live_through(world, promises)
                network.cancel_scope.cancel()
        return world.trace

    trace = run_seeded(main, episode.seed, [promises])
    return Outcome(episode, promises.breach, trace)


async def _live_through(world: World, promises: Promises) -> None:
    await world.put(CONFIG, config_of(world.episode))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(promises.look)
        for host in world.hosts:
            await world.start(host)
        async with trio.open_nursery() as faults:
            for fault in world.episode.faults:
                faults.start_soon(strike, world, fault)
        await clean_up(world)
        await trio.sleep(QUIET + 15)
        with trio.move_on_after(2 * world.episode.ttl + QUIET):
            while promises.find_unwell():  # noqa: ASYNC110  # nobody tells when all is well
                await trio.sleep(1)
        await promises.look_once()
        promises.all_are_well()
        nursery.cancel_scope.cancel()


def _memory() -> str | None:
    """Files that are gone in a moment need no disk."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None
