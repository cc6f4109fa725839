"""A lease and its attributes, as a node reads them."""

from __future__ import annotations

from dataclasses import dataclass

from overlayd.core.network.addresses import Family, IPAddress, Subnet


@dataclass(frozen=True, slots=True)
class Attributes:
    """The attributes that a node tells its peers in its lease.

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
    """One lease.

    `order` tells which of two leases is older: the one with the lower number, and numbers are good for nothing
    else.  A reservation never expires; it `is_held` while its node shows itself beside it, as other leases do by
    being there.
    """

    subnet: Subnet
    attributes: Attributes
    order: int
    is_reservation: bool = False
    is_held: bool = True
