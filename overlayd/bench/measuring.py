"""The measurements themselves, each between the two pods of a stage."""

from __future__ import annotations

import os
from pathlib import Path

from overlayd.bench import iperf, search
from overlayd.bench.failure import BenchError
from overlayd.bench.model import Measure, Plan, Wire
from overlayd.bench.search import Trial
from overlayd.bench.stage import Stage, pinned
from overlayd.bench.wire import set_wire

PORT = "9000"
"""Of the receivers; nothing else listens in a pod."""


def measure(stage: Stage, wire: Wire, plan: Plan) -> dict[Measure, float]:
    """All figures of one turn.  Raises BenchError."""
    set_wire(stage, wire)
    figures = throughput(stage, plan.seconds)
    for size, highest, lossless in (
        (64, Measure.PACKETS_64, Measure.LOSSLESS_64),
        (1400, Measure.PACKETS_1400, Measure.LOSSLESS_1400),
    ):
        trials = try_rates(stage, size, plan.seconds / 4, plan.trials)
        figures[highest] = search.highest_rate(trials)
        figures[lossless] = search.lossless_rate(trials)
    return figures | round_trip(stage, plan.seconds / 2)


def throughput(stage: Stage, seconds: int) -> dict[Measure, float]:
    before = busy_seconds()
    rate = transfer(stage, 1, seconds)
    busy = busy_seconds() - before
    return {
        Measure.TCP_1: rate,
        Measure.CPU: busy / (rate * seconds / 1e9),
        Measure.TCP_4: transfer(stage, 4, seconds),
    }


def transfer(stage: Stage, streams: int, seconds: int) -> float:
    """Bits a second over TCP."""
    with stage.running(stage.target.name, iperf.SERVER, iperf.LISTENING):
        command = iperf.client(stage.target_address, streams, seconds)
        report = stage.run(stage.source.name, command, seconds, iperf.EXIT_STATUSES)
    try:
        return iperf.parse_throughput(report)
    except ValueError as error:
        raise BenchError(f"{stage.mode}: {error}") from error


def try_rates(stage: Stage, size: int, seconds: float, most: int) -> list[Trial]:
    """Trials of so many seconds until the rate without loss is known, or `most` were made."""
    trials: list[Trial] = []
    while (rate := search.find_next(trials, most)) is not None:
        trials.append(try_rate(stage, size, rate, seconds))
    return trials


def try_rate(stage: Stage, size: int, rate: float, seconds: float) -> Trial:
    program = stage.tools.packets
    with stage.running(stage.target.name, [program, "receive", PORT], "ready") as receiver:
        command = [program, "send", stage.target_address, PORT, str(size), f"{rate:.0f}", f"{seconds:.3f}"]
        sent, took = stage.run(stage.source.name, command, seconds).split()
    return Trial(rate, int(sent), int(receiver.said.split()[-1]), float(took))


def round_trip(stage: Stage, seconds: float) -> dict[Measure, float]:
    """Seconds there and back, each node and its pod on a processor of its own where there are two."""
    program = stage.tools.pingpong
    processors = sorted(os.sched_getaffinity(0))
    near, far = processors[0], processors[-1]
    answer = ["taskset", "--cpu-list", str(far), program, "answer", PORT]
    ask = ["taskset", "--cpu-list", str(near), program, "ask", stage.target_address, PORT, f"{seconds:.3f}"]
    with (
        pinned(stage, {stage.source.node: near, stage.target.node: far}),
        stage.running(stage.target.name, answer, "ready"),
    ):
        _, p50, p99 = map(float, stage.run(stage.source.name, ask, seconds).split())
    return {Measure.RTT_P50: p50 / 1e9, Measure.RTT_P99: p99 / 1e9}


def busy_seconds() -> float:
    """What all processors of the machine have worked since it started, in seconds (proc_stat(5)): forwarding is
    done in the name of whatever process happens to run, so that no process's own account would tell."""
    user, nice, system, _idle, _iowait, irq, softirq = map(
        int, Path("/proc/stat").read_text().splitlines()[0].split()[1:8]
    )
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
