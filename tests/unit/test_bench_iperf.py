"""What iperf3 prints, read strictly."""

from __future__ import annotations

import json

import pytest

from overlayd.bench.iperf import parse_throughput

REPORT = {
    "start": {"version": "iperf 3.12"},
    "intervals": [],
    "end": {
        "sum_sent": {"bits_per_second": 9.9e9, "retransmits": 3},
        "sum_received": {"seconds": 1.0, "bits_per_second": 9.3e9},
    },
}


def test_the_receivers_figure_counts() -> None:
    assert parse_throughput(json.dumps(REPORT)) == 9.3e9


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "printed no JSON"),
        ("iperf3: error - unable to connect", "printed no JSON"),
        ("[]", "printed no JSON"),
        ('{"error": "unable to connect to server: Connection refused"}', "iperf3: unable to connect to server"),
        ('{"end": {}}', "sum_received"),
        ('{"end": {"sum_received": {"bits_per_second": "fast"}}}', "bits_per_second"),
    ],
)
def test_what_is_no_report_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_throughput(text)
