"""Puts the daemon's parts together into one Status: pure, so that every sentence can be tested."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from overlayd.core.kernel.datapath import DatapathReport
from overlayd.core.kernel.items import Datapath
from overlayd.core.kernel.report import Report
from overlayd.core.leases.keeper import KeeperState, belief
from overlayd.core.leases.lease import Lease
from overlayd.core.leases.tenure import Belief, Waiting
from overlayd.core.network.addresses import Family, Subnet
from overlayd.core.network.view import Underlay
from overlayd.core.status.problem import Problem
from overlayd.core.status.status import (
    DatapathStatus,
    FirewallStatus,
    LeaseStatus,
    PeerState,
    PeerStatus,
    ProblemStatus,
    ReconcilerStatus,
    Status,
    UnderlayStatus,
)


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """What does not change while a daemon runs."""

    version: str
    name: str
    node_id: str
    started: float
    resync: float


@dataclass(frozen=True, slots=True)
class StatusInputs:
    """What the parts know at one instant; None for what is not known yet."""

    node: NodeInfo
    at: float
    looked_at: float
    """When the reconciler last set out for a pass, whether or not there was anything to reach yet."""
    keeper: KeeperState
    leased_since: float
    in_sync: bool
    revision: int
    network: str | None
    backend: str | None
    underlay: Underlay | None
    peers: tuple[PeerStatus, ...]
    report: Report | None
    aimed_for: Subnet | None
    """The own subnet that the last report's wish was made for."""
    problems: tuple[Problem, ...]
    firewall: FirewallStatus | None = None


def compose_status(facts: StatusInputs) -> Status:
    """The status of this instant."""
    desired = facts.report.target.desired if facts.report is not None else None
    held, underlay = facts.keeper.served, facts.underlay
    until = None if held is None or held.is_reservation else facts.keeper.until
    return Status(
        version=facts.node.version,
        at=facts.report.at if facts.report is not None else facts.looked_at,
        resync=facts.node.resync,
        node=facts.node.name,
        node_id=facts.node.node_id,
        started=facts.node.started,
        belief=belief(facts.keeper, facts.at).value,
        in_sync=facts.in_sync,
        revision=facts.revision,
        network=facts.network,
        lease=LeaseStatus(str(held.subnet), facts.leased_since, until) if held is not None else None,
        backend=facts.backend,
        device=desired.device if desired is not None else None,
        mtu=desired.mtu if desired is not None else None,
        programmed=facts.report is not None and not _is_behind(facts, facts.report),
        underlay=UnderlayStatus(underlay.link, str(underlay.address), str(underlay.public_ip), underlay.mtu)
        if underlay is not None
        else None,
        firewall=facts.firewall,
        peers=facts.peers,
        problems=tuple(
            ProblemStatus(problem.code, problem.text, problem.remedy)
            for problem in sorted({*facts.problems, *lease_problems(facts), *kernel_problems(facts)})
        ),
        reconciler=_reconciler_status(facts.report) if facts.report is not None else ReconcilerStatus(),
    )


def _reconciler_status(report: Report) -> ReconcilerStatus:
    counters = report.counters
    return ReconcilerStatus(
        passes=counters.passes,
        done={verb.value: count for verb, count in counters.done.items()},
        refused={verb.value: count for verb, count in counters.refused.items()},
        retrying=len(report.retries.failed_operations),
    )


def with_datapath(status: Status, report: DatapathReport | None) -> Status:
    """The status with what the datapath says of itself at the moment of the question."""
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


def judge_peers(
    peers: Iterable[Lease], report: Report, before: Iterable[PeerStatus], at: float
) -> tuple[PeerStatus, ...]:
    """How far each peer is after a pass, at `at`.  Where the state is as it was `before`, its `since` goes on."""
    known = {peer.subnet: peer for peer in before}
    return tuple(_peer_status(peer, report, known, at) for peer in peers)


def _peer_status(peer: Lease, report: Report, known: Mapping[str, PeerStatus], at: float) -> PeerStatus:
    state, reason = judge_peer(peer.subnet, report)
    subnet = str(peer.subnet)
    before = known.get(subnet)
    since = before.since if before is not None and before.state is state else at
    public_ip = str(peer.attributes.public_ip(Family.IPV4) or peer.attributes.public_ip(Family.IPV6))
    return PeerStatus(peer.attributes.node_name or public_ip, subnet, public_ip, state, since, reason)


def judge_peer(subnet: Subnet, report: Report) -> tuple[PeerState, str]:
    """How far a peer's entries are, and why no farther."""
    if (refusal := report.target.desired.refused.get(subnet)) is not None:
        return PeerState.REFUSED, refusal
    wanted = report.target.desired.peers.get(subnet)
    if wanted is None:
        return PeerState.PENDING, "the kernel is not programmed yet"
    if report.is_reached(wanted):
        return PeerState.IN_SYNC, ""
    for key in wanted.by_key:
        if (failed_operation := report.retries.failed_operations.get(key)) is not None:
            return (
                PeerState.FAILED,
                f"the kernel refused to {failed_operation.operation}: {failed_operation.failure.reason}",
            )
    return PeerState.PENDING, report.trouble or "waits for what its entries depend on"


def lease_problems(facts: StatusInputs) -> Iterable[Problem]:
    keeper = facts.keeper
    match belief(keeper, facts.at):
        case Belief.HELD if keeper.complaint:
            yield Problem(
                "lease-not-renewed", f"the lease could not be renewed: {keeper.complaint}", "It asks again"
            )
        case Belief.FENCED:
            yield Problem(
                "lease-fenced",
                "this node can't tell whether its lease still holds"
                + (f": {keeper.complaint}" if keeper.complaint else ""),
                "It goes on as before, and asks again",
            )
        case Belief.LOST:
            why = (
                f"was lost to {keeper.lost_to}"
                if keeper.lost_to
                else f"no longer fits: it {keeper.config_mismatch}"
            )
            yield Problem("lease-lost", f"the subnet of this node {why}", "A new one is claimed")
        case Belief.UNCLAIMED if keeper.complaint:
            yield Problem("lease-unclaimed", f"this node has no subnet yet: {keeper.complaint}", "It asks again")
    match keeper.waits_for:
        case Waiting.CONFIG:
            yield Problem(
                "lease-unclaimed",
                "no subnet can be claimed while the network config can't be used",
                "Mend the config",
            )
        case Waiting.SUBNET:
            yield Problem(
                "out-of-subnets",
                f"all subnets of {facts.network} are taken: this node waits for one",
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
                f"another daemon has the identity of this node ({keeper.node_id}) and took its subnet",
                "If this machine was cloned, stop the daemon on one of the two, remove node.json there, start it",
            )


def _is_behind(facts: StatusInputs, report: Report) -> bool:
    """Whether something is missing in the kernel that the node needs whoever its peers are."""
    held = facts.keeper.held
    return (held is not None and held.subnet != facts.aimed_for) or not report.is_reached(
        report.target.desired.base
    )


def kernel_problems(facts: StatusInputs) -> Iterable[Problem]:
    """What the kernel lacks or refuses, beyond the peers, who speak for themselves."""
    report = facts.report
    if report is None:
        return
    if _is_behind(facts, report):
        yield Problem(
            "kernel-behind", "what this node itself needs is not all in the kernel", "It is being put there"
        )
    if report.trouble:
        yield Problem("kernel-silent", report.trouble)
    base = report.target.desired.base.by_key
    for key, failed_operation in report.retries.failed_operations.items():
        wanted_by_peer = key in report.target.desired.kernel.by_key and key not in base
        if isinstance(failed_operation.operation.item, Datapath):
            yield Problem(
                "datapath-down",
                f"the userspace datapath does not run: {failed_operation.failure.reason}",
                "It is tried again",
            )
        elif not wanted_by_peer:
            yield Problem(
                "kernel-refused",
                f"the kernel refused to {failed_operation.operation}: {failed_operation.failure.reason}",
            )
