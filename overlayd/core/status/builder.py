"""Puts the daemon's parts together into one Status: pure, so that every sentence can be tested."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from overlayd.core.decide import NOTHING_YET
from overlayd.core.kernel.datapath import DatapathReport
from overlayd.core.leases.lease import Lease
from overlayd.core.leases.tenure import Belief, Tenure, Waiting
from overlayd.core.network.addresses import Subnet
from overlayd.core.network.desired import DesiredState
from overlayd.core.report import BOUNDS, Report
from overlayd.core.status.conditions import as_of, judge_peer, told
from overlayd.core.status.problem import Problem
from overlayd.core.status.status import (
    Condition,
    DatapathStatus,
    LeaseStatus,
    PeerState,
    PeerStatus,
    ReconcilerStatus,
    Status,
    UnderlayStatus,
)


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """The constants of a daemon's run."""

    version: str
    name: str
    node_id: str
    started: float
    resync: float


@dataclass(frozen=True, slots=True)
class StatusInputs:
    """The knowledge of the parts at one instant; `at` in seconds of CLOCK_BOOTTIME.

    `report` is the last pass's, None before the first is over.  `problems` are those that are not in the
    report's Decision.  `conditions` are those of the status before, of which `since` goes on.
    """

    node: NodeInfo
    at: float
    tenure: Tenure
    leased_since: float
    in_sync: bool
    revision: int
    peers: tuple[PeerStatus, ...] = ()
    report: Report | None = None
    problems: tuple[Problem, ...] = ()
    conditions: tuple[Condition, ...] = ()


def compose_status(inputs: StatusInputs) -> Status:
    """Compose the status of this instant."""
    report = inputs.report
    decision = report.decision if report is not None else NOTHING_YET
    network, view, underlay = decision.network, decision.view, decision.underlay
    served = inputs.tenure.served
    until = None if served is None or served.is_reservation else inputs.tenure.until
    networks = [str(leg.network) for leg in view.legs] if view is not None else []
    status = Status(
        version=inputs.node.version,
        at=report.at if report is not None else inputs.node.started,
        resync=inputs.node.resync,
        node=inputs.node.name,
        node_id=inputs.node.node_id,
        started=inputs.node.started,
        belief=inputs.tenure.belief(inputs.at).value,
        in_sync=inputs.in_sync,
        revision=inputs.revision,
        network=", ".join(networks) or None,
        lease=LeaseStatus(str(served.subnet), inputs.leased_since, until) if served is not None else None,
        backend=network.config.backend_type if network is not None else None,
        device=", ".join(dict.fromkeys(leg.device for leg in view.legs)) if view is not None else None,
        mtu=view.mtu if view is not None else None,
        programmed=report is not None and view is not None and not _is_behind(inputs, report),
        underlay=UnderlayStatus(underlay.link, str(underlay.address), str(underlay.public_ip), underlay.mtu)
        if underlay is not None
        else None,
        firewall=decision.firewall,
        peers=inputs.peers,
        problems=tuple(map(told, {*inputs.problems, *lease_problems(inputs), *kernel_problems(inputs)})),
        conditions=inputs.conditions,
        reconciler=_reconciler_status(report) if report is not None else ReconcilerStatus(),
    )
    return as_of(status, inputs.at)


def _reconciler_status(report: Report) -> ReconcilerStatus:
    counters = report.counters
    return ReconcilerStatus(
        passes=counters.passes,
        reasons=dict(counters.reasons),
        seconds=counters.seconds,
        within={str(bound): count for bound, count in zip(BOUNDS, counters.within, strict=True)},
        done={verb.value: count for verb, count in counters.done.items()},
        refused={verb.value: count for verb, count in counters.refused.items()},
        retrying=len(report.retries.failed_operations),
    )


def with_datapath(status: Status, report: DatapathReport | None) -> Status:
    """Return the status with what the datapath says of itself at the moment of the question."""
    if report is None:
        return status
    datapath = DatapathStatus(
        report.implementation,
        report.reason,
        report.offloads,
        dict(report.counters),
        dict(report.drops),
        report.trouble,
    )
    return msgspec.structs.replace(status, datapath=datapath)


def judge_peers(report: Report, before: Iterable[PeerStatus]) -> tuple[PeerStatus, ...]:
    """Judge how far each peer is after a pass.  Where the state is as it was `before`, its `since` goes on."""
    view, target = report.decision.view, report.decision.target
    if view is None or target is None:
        return ()
    known = {peer.subnet: peer for peer in before}
    return tuple(_peer_status(peer, report, target.desired, known) for peer in view.peers)


def _peer_status(
    peer: Lease, report: Report, desired: DesiredState, known: Mapping[str, PeerStatus]
) -> PeerStatus:
    state, reason = find_progress(peer.subnet, report, desired)
    subnet = str(peer.subnet)
    before = known.get(subnet)
    since = before.since if before is not None and before.state is state else report.at
    public_ip = str(next(iter(peer.attributes.public_ips), ""))
    name = peer.attributes.node_name or public_ip
    return PeerStatus(name, subnet, public_ip, state, since, reason, judge_peer(state, since, reason))


def find_progress(subnet: Subnet, report: Report, desired: DesiredState) -> tuple[PeerState, str]:
    """Find how far a peer's entries are, and why no farther."""
    if (refusal := desired.refused.get(subnet)) is not None:
        return PeerState.REFUSED, refusal
    wanted = desired.peers.get(subnet)
    if wanted is None:
        return PeerState.PENDING, "the kernel is not programmed yet"
    if report.is_reached(wanted):
        return PeerState.IN_SYNC, ""
    for key in wanted.by_key:
        if (failed := report.retries.failed_operations.get(key)) is not None:
            return PeerState.FAILED, f"the kernel refused to {failed.operation}: {failed.failure.reason}"
    return PeerState.PENDING, report.trouble or "waits for what its entries depend on"


def lease_problems(inputs: StatusInputs) -> Iterable[Problem]:
    tenure = inputs.tenure
    match tenure.belief(inputs.at):
        case Belief.HELD if tenure.complaint:
            yield Problem(
                "lease-not-renewed", f"the lease could not be renewed: {tenure.complaint}", "It asks again"
            )
        case Belief.FENCED:
            yield Problem(
                "lease-fenced",
                "this node can't tell whether its lease still holds"
                + (f": {tenure.complaint}" if tenure.complaint else ""),
                "It goes on as before, and asks again",
            )
        case Belief.LOST:
            why = (
                f"was lost to {tenure.lost_to}"
                if tenure.lost_to
                else f"no longer fits: it {tenure.config_mismatch}"
            )
            yield Problem("lease-lost", f"the subnet of this node {why}", "A new one is claimed")
        case Belief.UNCLAIMED if tenure.complaint:
            yield Problem("lease-unclaimed", f"this node has no subnet yet: {tenure.complaint}", "It asks again")
    match tenure.waits_for:
        case Waiting.CONFIG:
            yield Problem(
                "lease-unclaimed",
                "no subnet can be claimed while the network config can't be used",
                "Mend the config",
            )
        case Waiting.SUBNET:
            yield Problem(
                "out-of-subnets",
                f"all subnets of {_network_of(inputs)} are taken: this node waits for one",
                "Release the lease of a node that is gone (`overlayd leases list`), or enlarge the network",
            )
        case Waiting.THAW:
            yield Problem(
                "claims-frozen",
                "claims are frozen by an operator: this node waits for its subnet",
                "They thaw by themselves, or by `overlayd leases thaw`",
            )
        case Waiting.OTHER_SELF:
            yield Problem(
                "other-self",
                f"another daemon has the identity of this node ({inputs.node.node_id}) and took its subnet",
                "If this machine was cloned, stop the daemon on one of the two, remove node.json there, start it",
            )


def _network_of(inputs: StatusInputs) -> str:
    network = inputs.report.decision.network if inputs.report is not None else None
    return ", ".join(str(span.network) for span in network.config.ranges) if network is not None else "the network"


def _is_behind(inputs: StatusInputs, report: Report) -> bool:
    """Tell whether something is missing in the kernel that the node needs whoever its peers are."""
    served, view = inputs.tenure.served, report.decision.view
    aimed_for = view.own if view is not None else None
    is_older = served is not None and inputs.tenure.is_held and served.subnet != aimed_for
    return is_older or not report.is_base_reached


def kernel_problems(inputs: StatusInputs) -> Iterable[Problem]:
    """Name what the kernel lacks or refuses, beyond the peers, who speak for themselves."""
    report = inputs.report
    if report is None or (target := report.decision.target) is None:
        return
    if _is_behind(inputs, report):
        yield Problem(
            "kernel-behind", "what this node itself needs is not all in the kernel", "It is being put there"
        )
    if report.trouble:
        yield Problem("kernel-silent", report.trouble)
    base = target.desired.base.by_key
    wanted_by_peers = {key for state in target.desired.peers.values() for key in state.by_key}
    for key, failed in report.retries.failed_operations.items():
        if failed.operation.item.is_datapath:
            yield Problem(
                "datapath-down",
                f"the userspace datapath does not run: {failed.failure.reason}",
                "It is tried again",
            )
        elif key in base or key not in wanted_by_peers:
            yield Problem("kernel-refused", f"the kernel refused to {failed.operation}: {failed.failure.reason}")
