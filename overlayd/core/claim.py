"""What this node wants of its claimer, by the last Decision."""

from __future__ import annotations

from overlayd.core.decide import Decision
from overlayd.core.leases.claimer import ClaimRequest


def claim_request(decision: Decision) -> ClaimRequest | None:
    """Compose the claimer's request; None while there is no sound config, or it is not known what the lease is to
    say.

    A config that this host has yet to be found fit for is good enough to adopt and renew a lease by.
    """
    network = decision.network or decision.candidate
    if network is None or decision.advertised is None:
        return None
    return ClaimRequest(network.config, network.record, decision.advertised, decision.may_claim)
