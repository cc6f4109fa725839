"""A lease, and the hold on a reservation, as a key-value store has them."""

from __future__ import annotations

from dataclasses import dataclass

from overlayd.core.leases.lease import Attributes, Lease
from overlayd.core.network.addresses import Subnet


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """One lease as the store has it.  `lease_id` 0 means a reservation: the key never expires."""

    subnet: Subnet
    attributes: Attributes
    create_revision: int
    mod_revision: int
    lease_id: int

    @property
    def is_reservation(self) -> bool:
        return self.lease_id == 0

    @property
    def lease(self) -> Lease:
        """What a node reads of it, as far as this record alone tells."""
        return Lease(self.subnet, self.attributes, self.create_revision, self.is_reservation)


@dataclass(frozen=True, slots=True)
class Hold:
    """The key by which a node holds a reservation: it is on the node's grant, as the reservation is on none."""

    subnet: Subnet
    node_id: str
    incarnation: str
    create_revision: int
    mod_revision: int
    lease_id: int
