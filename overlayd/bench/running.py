"""Runs a bench: launches the lab of every mode, then lets them take turns."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from contextlib import ExitStack

from overlayd import __version__
from overlayd.bench import tools
from overlayd.bench.iperf import CONGESTION_CONTROL
from overlayd.bench.labs import built
from overlayd.bench.measuring import measure
from overlayd.bench.model import BenchPlan, BenchRun, Mode, Sample, Surroundings, Turn
from overlayd.bench.schedule import turns
from overlayd.bench.topology import BenchTopology


def run_bench(plan: BenchPlan, on_lab: Callable[[Mode], None], on_turn: Callable[[Turn], None]) -> BenchRun:
    """Run a bench; both functions are called with what comes next.  Raises BenchError, LabError."""
    tools.check_needed()
    load = os.getloadavg()[0]
    with ExitStack() as stack:
        programs = stack.enter_context(tools.compiled())
        topologies: dict[Mode, BenchTopology] = {}
        for mode in plan.modes:
            on_lab(mode)
            topologies[mode] = stack.enter_context(built(mode, programs))
        surroundings = describe_surroundings(topologies, load)
        samples: list[Sample] = []
        for turn in turns(plan):
            on_turn(turn)
            samples.append(Sample(turn, measure(topologies[turn.mode], turn.wire, plan)))
        return BenchRun(plan, surroundings, tuple(samples))


def describe_surroundings(topologies: dict[Mode, BenchTopology], load: float) -> Surroundings:
    return Surroundings(
        overlayd=__version__,
        kernel=platform.release(),
        python=platform.python_version(),
        iperf3=tools.iperf3_version(),
        processors=len(os.sched_getaffinity(0)),
        congestion_control=CONGESTION_CONTROL,
        load=load,
        datapaths={mode: words for mode, topology in topologies.items() if (words := describe_datapath(topology))},
    )


def describe_datapath(topology: BenchTopology) -> str:
    """Describe the datapath and its offloads; "" where the kernel carries the packets."""
    datapath = topology.datapath()
    if datapath is None:
        return ""
    return f"{datapath.implementation}, with {', '.join(datapath.offloads) or 'no offloads'}"
