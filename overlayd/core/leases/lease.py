"""A lease, its attributes, and the hold on a reservation, as the store has them."""

from __future__ import annotations

from dataclasses import dataclass

from overlayd.core.network.addresses import Family, IPAddress, Subnet


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a node tells its peers in its lease.

    `backend` is the backend's type as written in the record, "" where the record names none (flannel's udp
    and alloc).  `backend_data` is the JSON text of the backend's own part, or None: only the backend reads it.
    `node_id`, `node_name` and `incarnation` are overlayd's own fields, "" in a flannel node's record; the
    incarnation names one life of a daemon.
    """

    public_ips: tuple[IPAddress, ...]
    backend: str = ""
    backend_data: str | None = None
    backend_v6_data: str | None = None
    node_id: str = ""
    node_name: str = ""
    incarnation: str = ""

    def public_ip(self, family: Family) -> IPAddress | None:
        wanted = 4 if family is Family.IPV4 else 6
        return next((ip for ip in self.public_ips if ip.version == wanted), None)

    @property
    def identity(self) -> str:
        """Who holds the lease: overlayd's node id, else (flannel) the public address."""
        return self.node_id or ",".join(map(str, self.public_ips))


@dataclass(frozen=True, slots=True)
class Lease:
    """One lease as the store has it.  `lease_id` 0 means a reservation: the key never expires."""

    subnet: Subnet
    attributes: Attributes
    create_revision: int
    mod_revision: int
    lease_id: int

    @property
    def is_reservation(self) -> bool:
        return self.lease_id == 0


@dataclass(frozen=True, slots=True)
class Hold:
    """The key by which a node holds a reservation: it is on the node's grant, as the reservation is on none."""

    subnet: Subnet
    node_id: str
    incarnation: str
    create_revision: int
    mod_revision: int
    lease_id: int
