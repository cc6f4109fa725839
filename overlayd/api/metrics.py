"""The daemon's Answer as metrics in Prometheus' text format; docs/metrics.md lists them all.

Names begin with `overlayd_` and end with their unit, in base units (seconds, bytes).  Every label takes its values
from a small fixed set: neither the number of peers nor anything that a record in the store says makes a new
series.  How many peers and problems there are is told here; which they are, in /status.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from platform import python_version

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE
from prometheus_client.registry import Collector

from overlayd.core.kernel.driver import Verb
from overlayd.core.leases.tenure import Belief
from overlayd.core.status.health import is_true, why_not_ready
from overlayd.core.status.registry import ConditionType
from overlayd.core.status.status import (
    DatapathStatus,
    FirewallStatus,
    PeerState,
    StatusAnswer,
    Verdict,
)

__all__ = ["CONTENT_TYPE", "collect", "exposition"]


def exposition(answer: StatusAnswer) -> bytes:
    """Render the metrics in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Told(answer))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


class _Told(Collector):
    def __init__(self, answer: StatusAnswer) -> None:
        self._answer = answer

    def collect(self) -> Iterator[Metric]:
        return collect(self._answer)


def collect(answer: StatusAnswer) -> Iterator[Metric]:
    """Yield all families but those of the process."""
    yield from _daemon(answer)
    yield from _lease(answer)
    yield from _network(answer)
    yield from _store(answer)
    yield from _reconciler(answer)
    if answer.status.firewall is not None:
        yield from _firewall(answer.status.firewall)
    if answer.status.datapath is not None:
        yield from _datapath(answer.status.datapath)


def _daemon(answer: StatusAnswer) -> Iterator[Metric]:
    status = answer.status
    build = GaugeMetricFamily(
        "overlayd_build_info", "Always 1; what runs here.", labels=["version", "python_version"]
    )
    build.add_metric([status.version, python_version()], 1)
    yield build
    yield _gauge("overlayd_ready", "1 if /readyz says ready.", not why_not_ready(answer))
    verdicts = {verdict.name.lower(): answer.verdict is verdict for verdict in Verdict}
    yield _gauges("overlayd_verdict", "1 for the verdict of `overlayd status`.", "verdict", verdicts)
    yield _gauge("overlayd_status_age_seconds", "Time since the last look at the kernel.", answer.now - status.at)
    problems: dict[str, int] = {}
    for problem in status.problems:
        problems[problem.code] = problems.get(problem.code, 0) + 1
    yield _gauges("overlayd_problems", "Problems of this moment, by code.", "code", problems)


def _lease(answer: StatusAnswer) -> Iterator[Metric]:
    lease = answer.status.lease
    held = is_true(answer, ConditionType.LEASE_HELD)
    yield _gauge("overlayd_lease_held", "1 if the subnet is this node's.", held)
    beliefs = {belief.value: answer.status.belief == belief.value for belief in Belief}
    yield _gauges("overlayd_lease_belief", "1 for what the node believes of its lease.", "belief", beliefs)
    left = GaugeMetricFamily(
        "overlayd_lease_remaining_seconds",
        "Time until the lease may run out, negative after it; +Inf for a reservation; absent without a lease.",
    )
    if lease is not None:
        left.add_metric([], math.inf if lease.until is None else lease.until - answer.now)
    yield left


def _network(answer: StatusAnswer) -> Iterator[Metric]:
    states = [peer.state for peer in answer.status.peers]
    peers = {state.value.replace(" ", "_"): states.count(state) for state in PeerState}
    yield _gauges("overlayd_peers", "Peers by state.", "state", peers)
    mtu = GaugeMetricFamily("overlayd_mtu_bytes", "MTU of pods; absent until it is known.")
    if answer.status.mtu is not None:
        mtu.add_metric([], answer.status.mtu)
    yield mtu


def _store(answer: StatusAnswer) -> Iterator[Metric]:
    status = answer.status
    reached = is_true(answer, ConditionType.STORE_REACHABLE)
    yield _gauge("overlayd_store_connected", "1 if the store was read and answers.", reached)
    yield _gauge(
        "overlayd_store_revision", "The newest revision that was read, 0 before the first.", status.revision
    )


def _reconciler(answer: StatusAnswer) -> Iterator[Metric]:
    done = answer.status.reconciler
    yield CounterMetricFamily(
        "overlayd_reconciler_passes", "Comparisons of desired and actual state.", value=done.passes
    )
    why = "Passes by what woke them; one pass may have several reasons."
    yield _counters("overlayd_passes", why, "reason", done.reasons)
    buckets = [*((bound, float(count)) for bound, count in done.within.items()), ("+Inf", float(done.passes))]
    yield HistogramMetricFamily(
        "overlayd_pass_duration_seconds", "How long passes took.", buckets=buckets, sum_value=done.seconds
    )
    yield _counters("overlayd_reconciler_operations", "Changes made to the kernel.", "verb", _by_verb(done.done))
    yield _counters(
        "overlayd_reconciler_failures", "Changes that the kernel refused.", "verb", _by_verb(done.refused)
    )
    yield _gauge(
        "overlayd_reconciler_retries_pending", "Refused changes that wait for their next try.", done.retrying
    )
    yield _gauge(
        "overlayd_kernel_programmed",
        "1 if all that the node itself needs is in the kernel.",
        is_true(answer, ConditionType.PROGRAMMED),
    )


def _firewall(firewall: FirewallStatus) -> Iterator[Metric]:
    yield _gauge(
        "overlayd_firewall_masquerade", "1 if what leaves the network is masqueraded.", firewall.masquerade
    )
    yield _gauge(
        "overlayd_firewall_source_check", "1 if the sources of VXLAN packets are checked.", firewall.source_check
    )
    yield _counters("overlayd_firewall_drops", "Forged or stray packets, by reason.", "reason", firewall.drops)


_DIRECTIONS = ("tx", "rx")
"""To the peers and from them; the counters of a datapath begin so."""


def _datapath(datapath: DatapathStatus) -> Iterator[Metric]:
    counters = dict(datapath.counters)
    packets = {direction: counters.pop(f"{direction}_packets", 0) for direction in _DIRECTIONS}
    octets = {direction: counters.pop(f"{direction}_bytes", 0) for direction in _DIRECTIONS}
    yield _gauges(
        "overlayd_datapath_info", "Always 1; which datapath runs.", "implementation", {datapath.implementation: 1}
    )
    yield _counters("overlayd_datapath_packets", "Inner packets to and from peers.", "direction", packets)
    yield _counters("overlayd_datapath_bytes", "Their bytes.", "direction", octets)
    yield _counters("overlayd_datapath_drops", "Packets not passed on, by reason.", "reason", datapath.drops)
    yield _counters("overlayd_datapath_work", "How the work was done: docs/datapath.md.", "counter", counters)


def _by_verb(counts: Mapping[str, int]) -> Mapping[str, int]:
    return {verb.value: counts.get(verb.value, 0) for verb in Verb}


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(name, meaning, value=value)


def _gauges(name: str, meaning: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, meaning, labels=[label])
    for word, value in values.items():
        family.add_metric([word], value)
    return family


def _counters(name: str, meaning: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(name, meaning, labels=[label])
    for word, value in values.items():
        family.add_metric([word], value)
    return family
