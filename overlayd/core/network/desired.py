"""What a node desires of the kernel, peer by peer, stated again only for the peers that changed.

The result depends on the policies and the view alone; what was stated before only saves work.  Of two peers that
want one kernel key for different items the older is served, on every node alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from overlayd.core.kernel.items import Item, KernelState, Key
from overlayd.core.leases.lease import Lease
from overlayd.core.network.addresses import Subnet
from overlayd.core.network.backend import PeerRefusedError
from overlayd.core.network.view import NetworkView, peers_by_age


class Policy(Protocol):
    """States part of what is desired: a backend, or what stands beside it (the packet filters)."""

    def base(self, view: NetworkView) -> Iterable[Item]: ...

    def peer(self, view: NetworkView, lease: Lease) -> Iterable[Item]: ...


@dataclass(frozen=True, slots=True)
class PeerPart:
    """The part of one lease in the desired state: its items, or why it can't be served as the end of a
    sentence about it."""

    lease: Lease
    items: KernelState
    refusal: str = ""


@dataclass(frozen=True)
class DesiredState:
    """The items that a node should have in the kernel, with each peer's part apart.

    `base` is what the node needs whoever its peers are; `peers` is what each peer needs on top; `refused` says of
    a peer that can't be served why not, as the end of a sentence about that peer.  The rest saves work the next
    time: `context` is all that peers' parts depend on beside their leases, `parts` are theirs by the lease's id(),
    and `claims` counts the parts that want a key.
    """

    base: KernelState
    peers: Mapping[Subnet, KernelState] = field(default_factory=dict)
    refused: Mapping[Subnet, str] = field(default_factory=dict)
    context: object = field(default=None, compare=False, repr=False)
    parts: Mapping[int, PeerPart] = field(default_factory=dict, compare=False, repr=False)
    claims: Mapping[Key, int] = field(default_factory=dict, compare=False, repr=False)

    @property
    def kernel(self) -> KernelState:
        """All of it in one."""
        return KernelState.union((self.base, *self.peers.values()))


def state_desired(
    policies: Sequence[Policy], view: NetworkView, before: DesiredState | None = None
) -> DesiredState:
    """Ask each policy for the node and for each peer; `before` is what was desired last, if anything was."""
    base = KernelState.of(item for policy in policies for item in policy.base(view))
    context = (tuple(policies), view.config, view.underlay, view.mac, view.own, view.in_sync, view.legs, base)
    known = before.parts if before is not None and before.context == context else {}
    parts: dict[int, PeerPart] = {}
    fresh: list[PeerPart] = []
    for lease in view.peers:
        part = known.get(id(lease))
        if part is None or part.lease is not lease:
            part = _part(policies, view, lease)
            fresh.append(part)
        parts[id(lease)] = part
    claims = _claims(before if known else None, known, parts, fresh)
    contested = any(claims[key] > 1 or key in base.by_key for part in fresh for key in part.items.by_key)
    was_contested = bool(known) and before is not None and len(before.refused) != _refusals(known.values())
    if contested or was_contested:
        return _contested(base, parts, context, claims)
    peers = {part.lease.subnet: part.items for part in parts.values() if not part.refusal}
    refused = {part.lease.subnet: part.refusal for part in parts.values() if part.refusal}
    return DesiredState(base, peers, refused, context, parts, claims)


def _part(policies: Sequence[Policy], view: NetworkView, lease: Lease) -> PeerPart:
    try:
        return PeerPart(lease, KernelState.of(item for policy in policies for item in policy.peer(view, lease)))
    except PeerRefusedError as reason:
        return PeerPart(lease, KernelState(), str(reason))


def _refusals(parts: Iterable[PeerPart]) -> int:
    return sum(1 for part in parts if part.refusal)


def _claims(
    before: DesiredState | None,
    known: Mapping[int, PeerPart],
    parts: Mapping[int, PeerPart],
    fresh: list[PeerPart],
) -> dict[Key, int]:
    """Count who wants each key, from what was counted before where that holds."""
    claims: Counter[Key] = Counter(before.claims) if before is not None else Counter()
    for gone in known.keys() - parts.keys():
        claims.subtract(known[gone].items.by_key.keys())
    for part in fresh:
        claims.update(part.items.by_key.keys())
    return claims


def _contested(
    base: KernelState, parts: Mapping[int, PeerPart], context: object, claims: Mapping[Key, int]
) -> DesiredState:
    """Serve the older where two parts want one key for different items."""
    peers: dict[Subnet, KernelState] = {}
    refused: dict[Subnet, str] = {}
    owners: dict[Key, tuple[Item, str]] = {key: (item, "this node") for key, item in base.by_key.items()}
    by_lease = {id(part.lease): part for part in parts.values()}
    for lease in peers_by_age(part.lease for part in parts.values()):
        part = by_lease[id(lease)]
        if part.refusal:
            refused[lease.subnet] = part.refusal
            continue
        wanted = part.items.by_key.items()
        taken = next((item for key, item in wanted if owners.get(key, (item,))[0] != item), None)
        if taken is not None:
            theirs, owner = owners[taken.key]
            refused[lease.subnet] = f"needs {taken}, and {owner} needs {theirs}"
            continue
        owners.update((key, (item, str(lease.subnet))) for key, item in wanted)
        peers[lease.subnet] = part.items
    return DesiredState(base, peers, refused, context, parts, claims)
