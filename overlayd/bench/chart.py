"""Draws a bench as a chart: a panel for each measure that users notice, a bar for each mode."""

from __future__ import annotations

from collections.abc import Iterator
from xml.sax.saxutils import escape

from overlayd.bench.judging import find_median
from overlayd.bench.model import BenchRun, Measure, Mode, WireSize
from overlayd.bench.table import show

COLOURS = {
    Mode.HOST_GW: "#9aa5b1",
    Mode.VXLAN: "#5b7fa6",
    Mode.VXLAN_1K: "#4b6d92",
    Mode.VXLAN_10K: "#3b5b7e",
    Mode.VXLAN_MASQ: "#7d6fa6",
    Mode.UDP_C: "#d9772b",
    Mode.UDP_PYTHON: "#e8b27d",
    Mode.VXLAN_PLAIN: "#a9bdd2",
    Mode.NAT_PLAIN: "#b9b1d2",
    Mode.FLANNEL_LIKE: "#b4bcc4",
    Mode.PLAIN: "#c9ced4",
}
PANELS = (
    (Measure.TCP_1, WireSize.SUPERPACKETS),
    (Measure.TCP_1, WireSize.MTU_SIZED),
    (Measure.PACKETS_64, WireSize.SUPERPACKETS),
    (Measure.PACKETS_1400, WireSize.SUPERPACKETS),
    (Measure.RTT_P50, WireSize.SUPERPACKETS),
    (Measure.CPU, WireSize.SUPERPACKETS),
)
ACROSS = 2
# All in pixels.
LABEL, BAR, VALUE, ROW, THICK, HEAD, GAP, MARGIN = 80, 190, 60, 20, 13, 34, 24, 20


def draw(run: BenchRun) -> str:
    """Draw the chart as an SVG 1.1 document (https://www.w3.org/TR/SVG11/)."""
    panels = [(measure, wire) for measure, wire in PANELS if wire in run.plan.wires]
    wide, high = LABEL + BAR + VALUE, HEAD + ROW * len(run.plan.modes)
    rows = -(-len(panels) // ACROSS)
    width = 2 * MARGIN + ACROSS * wide + (ACROSS - 1) * GAP
    height = 2 * MARGIN + rows * high + (rows - 1) * GAP
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif" font-size="12" fill="#333">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for place, (measure, wire) in enumerate(panels):
        x = MARGIN + place % ACROSS * (wide + GAP)
        y = MARGIN + place // ACROSS * (high + GAP)
        lines.append(f'<g transform="translate({x} {y})">')
        lines += _panel(run, measure, wire)
        lines.append("</g>")
    return "\n".join([*lines, "</svg>", ""])


def _panel(run: BenchRun, measure: Measure, wire: WireSize) -> Iterator[str]:
    quantity = measure.quantity
    direction = "more is better" if quantity.more_is_better else "less is better"
    yield f'<text y="12" font-weight="600">{escape(quantity.title)}</text>'
    yield f'<text y="26" font-size="10" fill="#777">{quantity.unit}, {wire} wire; {direction}</text>'
    values = {mode: find_median(run.samples, wire, measure, mode) or 0.0 for mode in run.plan.modes}
    most = max(values.values()) or 1.0
    for row, (mode, value) in enumerate(values.items()):
        y = HEAD + row * ROW
        length = BAR * value / most
        yield f'<text x="{LABEL - 8}" y="{y + 11}" text-anchor="end">{mode}</text>'
        yield f'<rect x="{LABEL}" y="{y}" width="{length:.1f}" height="{THICK}" rx="2" fill="{COLOURS[mode]}"/>'
        yield f'<text x="{LABEL + length + 6:.1f}" y="{y + 11}">{show(measure, value)}</text>'
