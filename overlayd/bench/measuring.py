"""The measurements, each between the two pods of a topology."""

from __future__ import annotations

import os
from pathlib import Path

from overlayd.bench import iperf, search
from overlayd.bench.failure import BenchError
from overlayd.bench.model import BenchPlan, Measure, WireSize
from overlayd.bench.search import Trial
from overlayd.bench.topology import BenchTopology, pinned
from overlayd.bench.wire import set_wire

PORT = "9000"
"""The receivers' port; nothing else listens in a pod."""


def measure(topology: BenchTopology, wire: WireSize, plan: BenchPlan) -> dict[Measure, float]:
    """Measure all figures of one turn.  Raises BenchError."""
    set_wire(topology, wire)
    figures = throughput(topology, plan.seconds)
    for size, highest, lossless in (
        (64, Measure.PACKETS_64, Measure.LOSSLESS_64),
        (1400, Measure.PACKETS_1400, Measure.LOSSLESS_1400),
    ):
        trials = try_rates(topology, size, plan.seconds / 4, plan.trials)
        figures[highest] = search.highest_rate(trials)
        figures[lossless] = search.lossless_rate(trials)
    return figures | round_trip(topology, plan.seconds / 2)


def throughput(topology: BenchTopology, seconds: int) -> dict[Measure, float]:
    before = busy_seconds()
    rate = transfer(topology, 1, seconds)
    busy = busy_seconds() - before
    return {
        Measure.TCP_1: rate,
        Measure.CPU: busy / (rate * seconds / 1e9),
        Measure.TCP_4: transfer(topology, 4, seconds),
    }


def transfer(topology: BenchTopology, streams: int, seconds: int) -> float:
    """Measure bits a second over TCP."""
    with topology.running(topology.target.name, iperf.SERVER, iperf.LISTENING):
        command = iperf.client(topology.target_address, streams, seconds)
        report = topology.run(topology.source.name, command, seconds, iperf.EXIT_STATUSES)
    try:
        return iperf.parse_throughput(report)
    except ValueError as error:
        raise BenchError(f"{topology.mode}: {error}") from error


def try_rates(topology: BenchTopology, size: int, seconds: float, most: int) -> list[Trial]:
    """Make trials of so many seconds until the rate without loss is known, or `most` were made."""
    trials: list[Trial] = []
    while (rate := search.find_next(trials, most)) is not None:
        trials.append(try_rate(topology, size, rate, seconds))
    return trials


def try_rate(topology: BenchTopology, size: int, rate: float, seconds: float) -> Trial:
    program = topology.tools.packets
    with topology.running(topology.target.name, [program, "receive", PORT], "ready") as receiver:
        command = [program, "send", topology.target_address, PORT, str(size), f"{rate:.0f}", f"{seconds:.3f}"]
        sent, took = topology.run(topology.source.name, command, seconds).split()
    return Trial(rate, int(sent), int(receiver.output.split()[-1]), float(took))


def round_trip(topology: BenchTopology, seconds: float) -> dict[Measure, float]:
    """Measure the round-trip time in seconds, with each node and its pod on its own processor if there are two."""
    program = topology.tools.pingpong
    processors = sorted(os.sched_getaffinity(0))
    near, far = processors[0], processors[-1]
    answer = ["taskset", "--cpu-list", str(far), program, "answer", PORT]
    ask = ["taskset", "--cpu-list", str(near), program, "ask", topology.target_address, PORT, f"{seconds:.3f}"]
    with (
        pinned(topology, {topology.source.node: near, topology.target.node: far}),
        topology.running(topology.target.name, answer, "ready"),
    ):
        _, p50, p99 = map(float, topology.run(topology.source.name, ask, seconds).split())
    return {Measure.RTT_P50: p50 / 1e9, Measure.RTT_P99: p99 / 1e9}


def busy_seconds() -> float:
    """Return the seconds that all processors of the machine have worked since it started (proc_stat(5)).

    The kernel accounts forwarding to whichever process happens to run, so no process's own time shows it.
    """
    user, nice, system, _idle, _iowait, irq, softirq = map(
        int, Path("/proc/stat").read_text().splitlines()[0].split()[1:8]
    )
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
