"""What goes in at one end of the udp backend comes out at the other, byte for byte, whatever the underlay does."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack

import pytest

from support.lab import Labs
from support.udp_lab import UdpLab, helper, transfer

STREAMS = 4


@pytest.fixture(scope="module")
def lab(labs: Labs) -> UdpLab:
    return UdpLab(labs)


@pytest.fixture(scope="module")
def servers(lab: UdpLab) -> Generator[None]:
    with ExitStack() as stack:
        for pod in ("pod1-1", "pod2-1"):
            stack.enter_context(helper(lab, pod, "support.transfers", "serve"))
        yield


PAIRS = [("pod1-1", "pod2-1"), ("pod2-1", "pod1-1"), ("pod3-1", "pod1-1")]
"""From a C node to a Python one, from Python to C, from C to C."""


@pytest.mark.usefixtures("servers")
@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_streams_and_datagrams_arrive_unchanged(lab: UdpLab, source: str, target: str) -> None:
    before = lab.datapath("node1").counters
    transfer(lab, source, "stream", lab.addresses[target], STREAMS, 4_000_000, 1)
    transfer(lab, source, "datagrams", lab.addresses[target], 7)
    after = lab.datapath("node1").counters
    for used in ("tx_superpackets", "tx_trains", "rx_superpackets"):
        assert after[used] > before[used], f"{used}: nothing was cut or joined"


@pytest.mark.usefixtures("servers")
@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_they_do_so_on_an_underlay_that_loses_reorders_and_doubles(lab: UdpLab, source: str, target: str) -> None:
    with helper(lab, None, "support.lossy_relay", "seed", source[3], target[3]) as counts:
        transfer(lab, source, "stream", lab.addresses[target], STREAMS, 500_000, 11)
        transfer(lab, source, "datagrams", lab.addresses[target], 17)
    assert len(counts) == 4
    assert all(int(count) > 0 for count in counts), "the relay has passed, lost, held and doubled"
