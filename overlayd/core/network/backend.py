"""The seam to the backends: policy as pure functions of the network view."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, Self

from overlayd.core.kernel.items import KernelState
from overlayd.core.leases.lease import Attributes, Lease
from overlayd.core.network.addresses import Family, Mac, Subnet
from overlayd.core.network.view import NetworkView, Underlay


class BackendOptionError(ValueError):
    """An option of the `Backend` object in the network config is wrong; `key` names it."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"Backend.{key}: {reason}")
        self.key = key


@dataclass(frozen=True, slots=True)
class HostRequirements:
    """A UDP port, None for none; the VNI of a vxlan device of the kernel, None for no such device; the right to
    make a TUN device."""

    port: int | None = None
    vni: int | None = None
    tun: bool = False


@dataclass(frozen=True, slots=True)
class DesiredState:
    """What a backend wants of the kernel.

    `base` is what the node needs whoever its peers are; `peers` is what each peer needs on top; `refused`
    says of a peer that can't be served why not, as the end of a sentence about that peer.  `device` names the
    interface that overlay traffic leaves by, and `mtu` is what the pods may use, in bytes.
    """

    device: str
    mtu: int
    base: KernelState
    peers: Mapping[Subnet, KernelState] = field(default_factory=dict)
    refused: Mapping[Subnet, str] = field(default_factory=dict)

    @property
    def kernel(self) -> KernelState:
        return KernelState.union((self.base, *self.peers.values()))


class Backend(Protocol):
    """How packets cross the underlay.  Backends decide; they do no IO.  A third party adds one through the
    entry point group `overlayd.backends`."""

    kind: ClassVar[str]
    """The `Type` in the network config and the BackendType in a lease."""

    @classmethod
    def known(cls) -> frozenset[str]:
        """The option keys that this backend reads, spelled as documented."""
        ...

    @classmethod
    def parse(cls, options: Mapping[str, object]) -> Self:
        """Read the `Backend` object, keys in lower case, `type` taken out; keys that are not `known` are
        ignored here, others warn of them.  Raises BackendOptionError."""
        ...

    def overhead(self, family: Family) -> int:
        """Bytes that encapsulation adds to a packet on an underlay of this family."""
        ...

    def advertise(self, underlay: Underlay, mac: Mac) -> Attributes:
        """What peers must know to reach this node; the identity fields are the caller's to fill."""
        ...

    def desired(self, view: NetworkView) -> DesiredState:
        """The whole wish for this view; never raises because of what a peer's lease holds."""
        ...

    def needs(self) -> HostRequirements:
        """What this host must have to spare for it."""
        ...


def refusal_of_type(peer: Lease, kind: str) -> str | None:
    """Why a peer of another backend type cannot be served, or None if the types agree."""
    theirs = peer.attributes.backend
    if theirs == kind:
        return None
    return (
        f"runs backend {theirs!r}, this node {kind!r}" if theirs else f"names no backend, this node runs {kind!r}"
    )
