"""A short bench of two modes: every figure is there, whatever it is worth."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from overlayd.bench import tools
from overlayd.bench.judging import GoalOutcome
from overlayd.bench.labs import built
from overlayd.bench.measuring import transfer
from overlayd.bench.model import Measure, Mode, WireSize
from overlayd.bench.tools import NEEDED
from overlayd.bench.topology import BenchTopology
from overlayd.bench.wire import set_wire
from support.lab import OVERLAYD, require_namespaces

ETHERNET_HEADER = 14
"""Bytes."""
PATIENCE = 180
"""Seconds; it takes fewer than 20 where nobody else works."""


@pytest.fixture(autouse=True)
def _needs() -> None:
    require_namespaces()
    for program, package in NEEDED.items():
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}: install the package {package}")
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        pytest.skip("needs root: /dev/net/tun is not for everyone here")


def test_a_quick_bench_of_two_modes_measures_everything(tmp_path: Path) -> None:
    chart = tmp_path / "chart.svg"
    options = ("--quick", "--modes", "host-gw,plain", "--json", "--plot", str(chart))
    command = [*OVERLAYD, "bench", "datapath", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.stdout, done.stderr
    whole = json.loads(done.stdout)

    samples = whole["run"]["samples"]
    assert [sample["turn"]["mode"] for sample in samples] == ["host-gw", "plain"]
    for sample in samples:
        assert sample["figures"].keys() == {measure.value for measure in Measure}
        nil = {name for name, figure in sample["figures"].items() if not figure > 0}
        assert nil <= {"lossless-64", "lossless-1400"}, sample  # two trials are too few to find them for sure
    assert len(whole["judgement"]["honesty"]) == 2
    assert GoalOutcome[whole["outcome"].upper()] == done.returncode
    assert whole["run"]["surroundings"]["processors"] > 0
    ET.fromstring(chart.read_text())


def test_the_wire_carries_superpackets_or_none() -> None:
    with tools.compiled() as programs, built(Mode.HOST_GW, programs) as topology:
        set_wire(topology, WireSize.MTU_SIZED)
        cut = bytes_a_packet(topology)
        set_wire(topology, WireSize.SUPERPACKETS)
        whole = bytes_a_packet(topology)
    assert cut <= 1500 + ETHERNET_HEADER
    assert whole > 2 * 1500


def bytes_a_packet(topology: BenchTopology) -> float:
    """What arrived at the other node in one stroke, on average, while TCP was as fast as it could."""
    counters = [f"/sys/class/net/eth0/statistics/rx_{what}" for what in ("bytes", "packets")]
    before = [int(topology.run(topology.target.node.name, ["cat", counter])) for counter in counters]
    transfer(topology, streams=1, seconds=1)
    after = [int(topology.run(topology.target.node.name, ["cat", counter])) for counter in counters]
    size, count = (late - early for late, early in zip(after, before, strict=True))
    return size / count
