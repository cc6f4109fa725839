"""The metrics: what they say, that docs/metrics.md lists just these, and that their number is bounded."""

from __future__ import annotations

import math
import re
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from overlayd.api.metrics import collect, exposition
from overlayd.core.firewall.nftables import COUNTERS
from overlayd.core.kernel.items import Link
from overlayd.core.status.health import answer
from overlayd.core.status.status import (
    DatapathStatus,
    FirewallStatus,
    LeaseStatus,
    PeerState,
    PeerStatus,
    ProblemStatus,
    ReconcilerStatus,
    Status,
)
from support.cluster import cluster
from support.statuses import GOOD, NOW

PAGE = (Path(__file__).parents[2] / "docs/metrics.md").read_text()
replace = msgspec.structs.replace


def peer(number: int, state: PeerState) -> PeerStatus:
    return PeerStatus(f"node{number}", f"10.244.{number}.0/24", f"10.99.0.{number}", state, NOW)


FULL = msgspec.structs.replace(
    GOOD,
    mtu=1472,
    datapath=DatapathStatus(
        "c", "it is there", (), {"tx_packets": 3, "tx_bytes": 900, "rx_packets": 2, "tx_sends": 1}, {"ipv6": 4}
    ),
    firewall=FirewallStatus(masquerade=True, source_check=False, reason="off", drops=dict.fromkeys(COUNTERS, 6)),
    peers=(peer(2, PeerState.IN_SYNC), peer(3, PeerState.IN_SYNC), peer(4, PeerState.REFUSED)),
    problems=(ProblemStatus("key-unknown", "a"), ProblemStatus("key-unknown", "b")),
    reconciler=ReconcilerStatus(
        passes=9,
        reasons={"start": 1, "store": 7, "lease": 1, "config": 1, "host": 1, "kernel": 2, "retry": 1, "resync": 1},
        seconds=0.5,
        within={"0.1": 8},
        done={"add": 12},
        refused={"change": 1},
        retrying=1,
    ),
)
BARE = Status("0.1.0", NOW, 30.0, "node1", "ab12", NOW, "unclaimed", in_sync=False, revision=0)


def values(status: Status, now: float = NOW) -> dict[str, float]:
    """`name{label="value"}` → value, as a scraper reads it."""
    found = {}
    for family in text_string_to_metric_families(exposition(answer(status, now)).decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sample.labels.items())
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def test_a_good_status_in_numbers() -> None:
    found = values(FULL)
    expected = {
        "overlayd_ready": 1,
        "overlayd_verdict{verdict=degraded}": 1,
        "overlayd_verdict{verdict=healthy}": 0,
        "overlayd_status_age_seconds": 5,
        "overlayd_problems{code=key-unknown}": 2,
        "overlayd_lease_held": 1,
        "overlayd_lease_belief{belief=held}": 1,
        "overlayd_lease_belief{belief=fenced}": 0,
        "overlayd_lease_remaining_seconds": 86_000,
        "overlayd_peers{state=in_sync}": 2,
        "overlayd_peers{state=refused}": 1,
        "overlayd_peers{state=failed}": 0,
        "overlayd_mtu_bytes": 1472,
        "overlayd_store_connected": 1,
        "overlayd_store_revision": 17,
        "overlayd_reconciler_passes_total": 9,
        "overlayd_passes_total{reason=store}": 7,
        "overlayd_pass_duration_seconds_bucket{le=0.1}": 8,
        "overlayd_pass_duration_seconds_bucket{le=+Inf}": 9,
        "overlayd_pass_duration_seconds_sum": 0.5,
        "overlayd_reconciler_operations_total{verb=add}": 12,
        "overlayd_reconciler_operations_total{verb=remove}": 0,
        "overlayd_reconciler_failures_total{verb=change}": 1,
        "overlayd_reconciler_retries_pending": 1,
        "overlayd_kernel_programmed": 1,
        "overlayd_firewall_masquerade": 1,
        "overlayd_firewall_source_check": 0,
        "overlayd_firewall_drops_total{reason=bad_source}": 6,
        "overlayd_datapath_info{implementation=c}": 1,
        "overlayd_datapath_packets_total{direction=tx}": 3,
        "overlayd_datapath_bytes_total{direction=tx}": 900,
        "overlayd_datapath_bytes_total{direction=rx}": 0,
        "overlayd_datapath_drops_total{reason=ipv6}": 4,
        "overlayd_datapath_work_total{counter=tx_sends}": 1,
    }
    assert {name: found.get(name) for name in expected} == expected
    assert found["process_open_fds"] > 0


def test_what_is_not_known_is_not_made_up() -> None:
    found = values(BARE)
    assert (found["overlayd_ready"], found["overlayd_lease_held"], found["overlayd_store_connected"]) == (0, 0, 0)
    for absent in ("overlayd_lease_remaining_seconds", "overlayd_mtu_bytes", "overlayd_datapath_info"):
        assert not any(name.startswith(absent) for name in found)
    away = replace(FULL, problems=(ProblemStatus("store-unreachable", "x"),))
    assert values(away)["overlayd_store_connected"] == 0


def test_a_lease_is_judged_at_the_instant_of_the_scrape() -> None:
    found = values(FULL, NOW + 86_010)
    assert found["overlayd_lease_held"] == 0
    assert found["overlayd_lease_belief{belief=fenced}"] == 1
    assert found["overlayd_lease_remaining_seconds"] == -10
    reserved = replace(FULL, lease=LeaseStatus("10.244.7.0/24", NOW - 1, until=None))
    assert values(reserved)["overlayd_lease_remaining_seconds"] == math.inf


def test_the_number_of_series_does_not_grow_with_the_cluster_or_with_what_it_says() -> None:
    hostile = tuple(PeerStatus(f'x"{n}\n', f"10.0.{n}.0/24", "1.2.3.4", PeerState.FAILED, NOW) for n in range(250))
    assert values(replace(FULL, peers=hostile)).keys() == values(FULL).keys()


OPEN = {"version", "python_version", "code", "implementation", "counter"}
"""Labels whose values are explained elsewhere; and so are the datapath's reasons."""


def row(family: Metric) -> str:
    """The line of the page about one family."""
    name = family.name + ("_total" if family.type == "counter" else "")
    values: dict[str, dict[str, None]] = {}
    for sample in family.samples:
        for label, value in sample.labels.items():
            if label == "le":  # every histogram has it
                continue
            values.setdefault(label, {})[f"`{value}`"] = None
    is_open = OPEN | ({"reason"} if family.name.startswith("overlayd_datapath") else set())
    labels = [f"`{label}`" + ("" if label in is_open else f": {', '.join(values[label])}") for label in values]
    return f"| `{name}` | {family.type} | {', '.join(labels)} | {family.documentation} |"


def test_the_page_lists_just_these() -> None:
    told = [line for line in PAGE.splitlines() if line.startswith("| `")]
    assert [re.sub(r"\|  \|", "| |", row(family)) for family in collect(answer(FULL, NOW))] == told


def test_the_page_lists_those_of_the_process() -> None:
    names = {name.partition("{")[0] for name in values(FULL) if name.startswith("process_")}
    assert set(re.findall(r"`(process_\w+)`", PAGE)) == names


@pytest.mark.parametrize("family", [*collect(answer(FULL, NOW))], ids=lambda family: family.name)
def test_names_are_well_formed(family: Metric) -> None:
    assert re.fullmatch(r"overlayd_[a-z_]+", family.name)
    assert not re.search(r"_(ms|kb|mb|percent|total)$", family.name)
    assert family.documentation.endswith(".")


async def test_a_daemon_counts_what_it_does_to_the_kernel(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with cluster(tmp_path, 2) as (_, [node, _other], _nursery):
        status = node.answer().status
        assert status.programmed
        before = status.reconciler
        assert before.done["add"] > 3
        assert (before.refused, before.retrying) == ({}, 0)
        node.kernel.fail_next(lambda operation: isinstance(operation.item, Link), times=1)
        node.kernel.delete_link("ovl.1")
        await trio.sleep(60)
        after = node.answer().status.reconciler
        assert after.refused == {"add": 1}
        assert after.done["add"] > before.done["add"]
        assert after.passes > before.passes
        assert after.retrying == 0
