"""What a bench prints and draws."""

from __future__ import annotations

import argparse
import xml.etree.ElementTree as ET

import pytest

from overlayd.bench.chart import COLOURS, PANELS, draw
from overlayd.bench.judging import judge
from overlayd.bench.model import BenchPlan, BenchRun, Measure, Mode, Sample, Surroundings, Turn, WireSize
from overlayd.bench.table import render
from overlayd.cli import main
from overlayd.cli.bench import parse_count, parse_modes

PLACE = Surroundings("0.1.0", "6.18.0", "3.11.7", "3.12", 2, "cubic", 0.1, {Mode.UDP_C: "c, because it is there"})
RAW = {
    Measure.TCP_1: 8e9,
    Measure.TCP_4: 9e9,
    Measure.CPU: 0.25,
    Measure.PACKETS_64: 123_400.0,
    Measure.LOSSLESS_64: 120_000.0,
    Measure.PACKETS_1400: 100_000.0,
    Measure.LOSSLESS_1400: 99_000.0,
    Measure.RTT_P50: 50e-6,
    Measure.RTT_P99: 0.0012,
}


def made(**factors: float) -> BenchRun:
    """One round on both wires; the modes' figures are so many times RAW."""
    modes = {Mode(name.replace("_", "-")): factor for name, factor in factors.items()}
    samples = [
        Sample(Turn(0, wire, mode), {measure: value * factor for measure, value in RAW.items()})
        for wire in WireSize
        for mode, factor in modes.items()
    ]
    return BenchRun(BenchPlan(modes=tuple(modes), rounds=1), PLACE, tuple(samples))


def shown(run: BenchRun) -> str:
    return render(run, judge(run.samples))


def test_ratios_come_first_then_the_figures_then_where_it_was() -> None:
    text = shown(made(host_gw=1, vxlan_plain=1, udp_c=0.6, plain=0.1))
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert rows[0] == "ratios"
    assert "udp-c ÷ plain TCP, 1 stream superpacket wire 6 ≥ 7 MISSED" in rows
    assert "udp-c ÷ vxlan-plain TCP, 1 stream superpacket wire 0.6 ≥ 0.6 met" in rows
    assert "host-gw 8.00 9.00 0.25 123.4 120.0 100.0 99.0 50 1200" in rows
    assert rows[-1] == "udp-c: c, because it is there"
    assert "Linux 6.18.0" in text
    assert rows.index("superpacket wire, medians") < rows.index("mtu-sized wire, medians")


def test_a_void_run_says_so() -> None:
    assert "VOID: a baseline is too slow" in shown(made(host_gw=1, plain=0.01))
    assert "VOID" not in shown(made(host_gw=1, plain=0.9))
    assert "VOID: a baseline is too slow" in shown(made(host_gw=1, vxlan_plain=0.01, plain=0.9))


def test_modes_that_took_no_part_are_not_judged() -> None:
    text = shown(made(vxlan=1))
    assert "ratios" not in text
    assert "baseline" not in text


def test_other_work_on_the_machine_is_named() -> None:
    run = made(vxlan=1)
    assert "had other work" not in shown(run)
    busy = BenchRun(run.plan, Surroundings("0", "6", "3", "3", 2, "cubic", load=2.5), run.samples)
    assert "this machine had other work (load 2.5" in shown(busy)


def test_the_chart_has_a_bar_for_each_mode_in_each_panel_in_proportion() -> None:
    root = ET.fromstring(draw(made(host_gw=1, udp_c=0.5)))
    svg = "{http://www.w3.org/2000/svg}"
    panels = root.findall(f"{svg}g")
    assert len(panels) == len(PANELS)
    for panel in panels:
        bars = panel.findall(f"{svg}rect")
        assert [bar.get("fill") for bar in bars] == [COLOURS[Mode.HOST_GW], COLOURS[Mode.UDP_C]]
        longest, half = (float(bar.get("width", "")) for bar in bars)
        assert half == pytest.approx(longest / 2, abs=0.1)
    width, height = float(root.get("width", "")), float(root.get("height", ""))
    assert all(0 <= float(rect.get("x", "0")) <= width for rect in root.iter(f"{svg}rect"))
    assert width < 1000
    assert height < 800


def test_each_mode_has_a_colour_of_its_own() -> None:
    assert COLOURS.keys() == set(Mode)
    assert len(set(COLOURS.values())) == len(Mode)


def test_a_chart_of_nothing_measured_has_no_bars_of_infinite_length() -> None:
    assert "nan" not in draw(made(plain=0.0))


@pytest.mark.parametrize("text", ["0", "-1", "2.5", "", "many", "²"])
def test_a_count_is_a_whole_number(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="not a whole number above 0"):
        parse_count(text)


def test_modes_are_named_once_each_in_the_order_given() -> None:
    assert parse_modes("plain,host-gw,plain") == (Mode.PLAIN, Mode.HOST_GW)
    with pytest.raises(argparse.ArgumentTypeError, match="'pigeon' is not a mode: give some of host-gw,vxlan"):
        parse_modes("plain,pigeon")


def test_missing_programs_are_named_with_what_brings_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.which", lambda program, path=None: None if program == "iperf3" else program)
    assert main(["bench", "datapath"]) == 1
    assert "needs iperf3: `apt-get install iperf3`" in capsys.readouterr().err
