"""What is worth a line in the log: the differences between one Decision, or one Tenure, and the next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from overlayd.core.decide import Decision
from overlayd.core.leases.lease import Attributes, Lease
from overlayd.core.leases.tenure import Tenure
from overlayd.core.network.addresses import Subnet

NAMED = 20
"""Peers that are told one by one when many change at once; the rest are counted."""


@dataclass(frozen=True, slots=True)
class LogEvent:
    """A line of the log and its fields."""

    text: str
    fields: Mapping[str, object] = field(default_factory=dict)
    is_warning: bool = False


def changes_of_decision(before: Decision, after: Decision) -> Iterator[LogEvent]:
    """Tell what a pass decided otherwise than the one before it."""
    if after.candidate is not None and after.candidate != before.candidate:
        config = after.candidate.config
        networks = ", ".join(str(span.network) for span in config.ranges)
        yield LogEvent("network config read", {"backend": config.backend_type, "network": networks})
    if after.underlay is not None and after.underlay != before.underlay:
        underlay = after.underlay
        fields = {"link": underlay.link, "address": underlay.address, "mtu": underlay.mtu}
        yield LogEvent("underlay found", fields)
    yield from _changes_of_peers(_peers(before), _peers(after))


def _peers(decision: Decision) -> tuple[Lease, ...]:
    return decision.view.peers if decision.view is not None else ()


def _changes_of_peers(before: tuple[Lease, ...], after: tuple[Lease, ...]) -> Iterator[LogEvent]:
    if before is after:
        return
    old = {lease.subnet: lease.attributes for lease in before}
    new = {lease.subnet: lease.attributes for lease in after}
    told = [(s, a, "peer changed" if s in old else "peer joined") for s, a in new.items() if old.get(s) != a]
    told += [(s, a, "peer left") for s, a in old.items() if s not in new]
    for subnet, attributes, text in told[:NAMED]:
        yield LogEvent(text, _peer_fields(subnet, attributes))
    if len(told) > NAMED:
        yield LogEvent("more peers changed", {"count": len(told) - NAMED})


def _peer_fields(subnet: Subnet, attributes: Attributes) -> dict[str, object]:
    public_ip = ",".join(map(str, attributes.public_ips))
    return {
        "node": attributes.node_name,
        "subnet": subnet,
        "public_ip": public_ip,
        "backend": attributes.backend,
    }


def changes_of_tenure(before: Tenure, after: Tenure, was: float, now: float) -> Iterator[LogEvent]:
    """Tell what became of this node's subnet between the instants `was` and `now`."""
    old, new = before.served, after.served
    if new is not None and (old is None or old.subnet != new.subnet):
        yield LogEvent("subnet leased", {"subnet": new.subnet})
    if old is not None and (new is None or new.subnet != old.subnet):
        reason = f"it {after.config_mismatch}" if after.config_mismatch else f"it went to {after.lost_to}"
        yield LogEvent("subnet lost", {"subnet": old.subnet, "reason": reason}, is_warning=True)
    believed = after.belief(now)
    if believed is not before.belief(was):
        yield LogEvent("lease belief changed", {"belief": believed.value, "reason": after.complaint})
