"""What the claimer may decide on: the book of leases, under the config and with the attributes of the last
Decision."""

from __future__ import annotations

from overlayd.core.decide import Decision
from overlayd.core.leases.book import LeaseBook
from overlayd.core.leases.keeper import StoreView, StoreViewed


def keeper_input(book: LeaseBook, decision: Decision) -> StoreViewed | None:
    """Compose the claimer's input; None while something is missing."""
    network = decision.network
    if network is None or decision.advertised is None or not book.in_sync:
        return None
    view = StoreView(
        book.revision,
        network.record.mod_revision,
        network.config,
        book.leases,
        book.taken,
        book.holds,
        book.returns,
        book.is_frozen,
        book.damaged,
        config_is_current=book.config == network.record,
    )
    return StoreViewed(view, decision.advertised)
