"""iperf3: its command lines, and its report in JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

LISTENING = "listening"
"""What its server prints once it accepts a client."""
CONGESTION_CONTROL = "cubic"
"""Linux's default, but not on every system (tcp(7))."""
EXIT_STATUSES = (0, 1)
"""The exit statuses with which its client prints JSON, which also has its error message."""
SERVER = ("iperf3", "--server", "--one-off", "--forceflush")


@dataclass(frozen=True)
class _Sum:
    bits_per_second: float


@dataclass(frozen=True)
class _End:
    sum_received: _Sum


@dataclass(frozen=True)
class _Report:
    end: _End


def client(address: str, streams: int, seconds: int) -> list[str]:
    return [
        *("iperf3", "--json", "--client", address, "--congestion", CONGESTION_CONTROL),
        *("--parallel", str(streams), "--time", str(seconds)),
    ]


def parse_throughput(text: str | bytes) -> float:
    """Parse a report: bits a second that the receiver counted, over all streams.

    Raises ValueError, with iperf3's own error message if it reports one.
    """
    try:
        report = msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ValueError(f"iperf3 printed no JSON: {error}") from error
    if "error" in report:
        raise ValueError(f"iperf3: {report['error']}")
    try:
        return msgspec.convert(report, type=_Report).end.sum_received.bits_per_second
    except msgspec.ValidationError as error:
        raise ValueError(f"iperf3 reports no throughput: {error}") from error
