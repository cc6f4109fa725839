"""What the claimer may decide on: the book of leases, under the config and with the attributes of the last
Decision."""

from __future__ import annotations

from overlayd.core.decide import Decision
from overlayd.core.leases.book import LeaseBook
from overlayd.core.leases.keeper import StoreViewed, to_view


def keeper_input(book: LeaseBook, decision: Decision) -> StoreViewed | None:
    """Compose the claimer's input; None while something is missing.

    Before a config is in force the candidate serves: under it a lease that stands is adopted and renewed, and an
    obstacle on this host keeps only a new one from being claimed.
    """
    network = decision.network or decision.candidate
    if network is None or decision.advertised is None or not book.in_sync:
        return None
    return StoreViewed(
        to_view(book, network.record, network.config, may_claim=decision.may_claim), decision.advertised
    )
