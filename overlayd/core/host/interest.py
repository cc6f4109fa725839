"""What of a host's tables matters to the overlay: the rest may change, and be large, without costing a pass."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from overlayd.core.network.addresses import IPNetwork


@dataclass(frozen=True, slots=True)
class Interest:
    """Where the overlay and its peers are.

    `networks` are the overlay's, `links` the interfaces that carry it; `peers` are the peers' underlay addresses
    as numbers, in order.  With `everything` all matters: nothing is known of the overlay yet.
    """

    networks: tuple[IPNetwork, ...] = ()
    links: frozenset[str] = frozenset()
    peers: tuple[int, ...] = ()
    everything: bool = True

    def in_route(self, version: int, first: int, prefixlen: int, link: str, *, direct: bool) -> bool:
        """Tell whether a route to this prefix matters; `direct`: it has no gateway.

        So do default routes, what overlaps the overlay, what is on-link on the underlay, and the way to a peer.
        """
        if self.everything or prefixlen == 0 or (direct and link in self.links):
            return True
        last = first + (1 << ((32 if version == 4 else 128) - prefixlen)) - 1
        if any(
            network.version == version
            and first <= int(network.broadcast_address)
            and last >= int(network.network_address)
            for network in self.networks
        ):
            return True
        place = bisect_left(self.peers, first)
        return place < len(self.peers) and self.peers[place] <= last

    def in_address(self, version: int, address: int, link: str) -> bool:
        """Tell whether an address matters: on the underlay's interface, or inside the overlay."""
        return (
            self.everything
            or link in self.links
            or any(
                network.version == version
                and int(network.network_address) <= address <= int(network.broadcast_address)
                for network in self.networks
            )
        )
