"""The seam to the backends: policy as pure functions of the network view, peer by peer.

A backend states what the node needs whoever its peers are (`base`), and what one peer needs on top (`peer`).  So
one lease's change costs one peer's work, and status can say of each peer how far it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import ClassVar, Protocol, Self

from overlayd.core.kernel.items import Item
from overlayd.core.leases.lease import Attributes, Lease
from overlayd.core.network.addresses import Family, Mac
from overlayd.core.network.config import NetworkConfig
from overlayd.core.network.view import Device, NetworkView, Underlay, make_legs

IP_MTU = 65_535
"""The largest IP packet, in bytes (RFC 791)."""


class BackendOptionError(ValueError):
    """An option of the `Backend` object in the network config is wrong; `key` names it."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"Backend.{key}: {reason}")
        self.key = key


class PeerRefusedError(Exception):
    """The reason why a peer gets no entries, as the end of a sentence about it."""


@dataclass(frozen=True, slots=True)
class HostRequirements:
    """A UDP port, None for none; the VNI of a vxlan device of the kernel, None for no such device; the right to
    make a TUN device."""

    port: int | None = None
    vni: int | None = None
    tun: bool = False


class Backend(Protocol):
    """The policy by which packets cross the underlay.  Backends decide; they do no IO.  A third party adds one
    through the entry point group `overlayd.backends`."""

    kind: ClassVar[str]
    """The `Type` in the network config and the BackendType in a lease."""
    families: ClassVar[frozenset[Family]]
    """The address families of pods that this backend carries."""
    options: ClassVar[frozenset[str]]
    """The option keys that this backend reads, spelled as documented."""

    @classmethod
    def parse(cls, options: Mapping[str, object]) -> Self:
        """Read the `Backend` object, keys in lower case, `type` taken out; keys that are not in `options` are
        ignored here, others warn of them.  Raises BackendOptionError."""
        ...

    def requirements(self) -> HostRequirements:
        """State what this host must have to spare."""
        ...

    def device(self, family: Family, underlay: Underlay) -> Device:
        """Name the interface that pods' packets of this family leave by, and the MTU that it leaves them."""
        ...

    def advertise(self, underlay: Underlay, mac: Mac) -> Attributes:
        """State what peers must know to reach this node; the identity fields are the caller's to fill."""
        ...

    def base(self, view: NetworkView) -> Iterable[Item]:
        """State what the node needs whoever its peers are.  `view.peers` are the leases served now."""
        ...

    def peer(self, view: NetworkView, lease: Lease) -> Iterable[Item]:
        """State what this peer needs on top, by `view` without its peers.

        Raises PeerRefusedError for a peer that can't be served, and nothing else, whatever its lease holds.
        """
        ...


def make_view(
    config: NetworkConfig,
    backend: Backend,
    underlay: Underlay,
    mac: Mac,
    lease: Lease | None,
    peers: tuple[Lease, ...],
    *,
    in_sync: bool,
) -> NetworkView:
    """Compose the view that `backend` is asked with."""
    own = lease.subnet if lease is not None else None
    legs = make_legs(config, underlay, own, backend.device)
    return NetworkView(config, underlay, mac, lease, peers, in_sync, legs)


def overhead(backend: Backend, family: Family) -> int:
    """Count the bytes that encapsulation adds to a packet on an underlay of this family."""
    address = ip_address("10.0.0.1" if family is Family.IPV4 else "fd00::1")
    underlay = Underlay("", address, (), IP_MTU, address)
    return IP_MTU - backend.device(family, underlay).mtu


def refusal_of_type(peer: Lease, kind: str) -> str | None:
    """Say why a peer of another backend type cannot be served, or None if the types agree."""
    theirs = peer.attributes.backend
    if theirs == kind:
        return None
    return (
        f"runs backend {theirs!r}, this node {kind!r}" if theirs else f"names no backend, this node runs {kind!r}"
    )
