"""The book of leases: what a node knows of its cluster, whatever store that comes from.

Which leases are served is one rule over the present leases, the same on every node: a lease outside the network
is not; where leases overlap, the oldest is, and the others are not.  So what the backends get is disjoint.  A
record that is no lease harms nothing but itself: it is a fault in the book.

A book is a value.  A store's side makes a new one when something changed (see source.py); nothing here knows
how a store keeps its leases.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby

from overlayd.core.leases.lease import Lease
from overlayd.core.network.addresses import IPNetwork, Subnet
from overlayd.core.network.config import NetworkConfig
from overlayd.core.status.problem import Problem

NAMED = 5
"""Problems of one kind that are told one by one; the rest are counted."""


@dataclass(frozen=True, slots=True)
class StoredConfig:
    """The network config as it stands in the store, sound or not.

    `version` is the store's own and means nothing but this: the same version is the same config.
    """

    value: bytes
    version: int


@dataclass(frozen=True)
class LeaseBook:
    """All leases of the cluster at one instant.

    `leases` are all that can be read, oldest first.  `damaged` are subnets whose record can't be read, or whose
    reservation's holder can't: nobody is served there, and nobody may claim them.  `faults` are what is wrong in
    the store whatever the config is.  `in_sync`: the whole store was read, so what is not in the book is not
    there.  `is_frozen`: an operator forbids claims for the time being.  `position` tells people how far the store
    has got, 0 before anything was read; it is compared with nothing.
    """

    leases: tuple[Lease, ...] = ()
    damaged: tuple[Subnet, ...] = ()
    faults: tuple[Problem, ...] = ()
    config: StoredConfig | None = None
    in_sync: bool = False
    is_frozen: bool = False
    position: int = 0

    @cached_property
    def taken(self) -> tuple[Subnet, ...]:
        """Every subnet that some record names, whatever it says: none of them can be claimed."""
        return (*(lease.subnet for lease in self.leases), *self.damaged)

    def served(self, config: NetworkConfig) -> tuple[Lease, ...]:
        """Return the leases that packets may be sent to, this node's own among them: disjoint, oldest first."""
        return _judge(self.leases, config).served

    def peers(self, config: NetworkConfig, is_own: Callable[[Lease], bool]) -> tuple[Lease, ...]:
        """Return the served leases of the others, oldest first.

        A lease that overlaps an older one of our own is not among them, nor is a reservation whose node has yet to
        come, or has gone elsewhere: nothing can be sent there.  That a reservation is not held is no reason alone
        not to serve it: its node may be cut off from the store, and still there.
        """
        served = self.served(config)
        elsewhere = {lease.attributes.node_id for lease in served if lease.is_held}
        return tuple(
            lease
            for lease in served
            if lease.attributes.public_ips
            and (lease.is_held or lease.attributes.node_id not in elsewhere)
            and not is_own(lease)
        )

    def problems(self, config: NetworkConfig | None) -> tuple[Problem, ...]:
        """List the faults in the store, in a fixed order; without a config, those that can be seen without one."""
        unserved = _judge(self.leases, config).problems if config is not None else ()
        return tuple(_capped((*self.faults, *unserved)))


@dataclass(frozen=True, slots=True)
class _Judgement:
    served: tuple[Lease, ...]
    problems: tuple[Problem, ...]


@dataclass(slots=True)
class _Held:
    """Disjoint intervals of addresses of one family, in order, and who holds each."""

    first: list[int] = field(default_factory=list)
    last: list[int] = field(default_factory=list)
    holder: list[Lease] = field(default_factory=list)

    def find_holder(self, first: int, last: int) -> Lease | None:
        """Find some holder of an address in this interval."""
        # As the intervals are disjoint, of those that begin in time the last one reaches furthest.
        index = bisect_right(self.first, last) - 1
        return self.holder[index] if index >= 0 and self.last[index] >= first else None

    def add(self, first: int, last: int, holder: Lease) -> None:
        index = bisect_right(self.first, first)
        self.first.insert(index, first)
        self.last.insert(index, last)
        self.holder.insert(index, holder)


def _judge(leases: Iterable[Lease], config: NetworkConfig) -> _Judgement:
    """Apply the rule to leases that come oldest first.  One that isn't served takes nothing from a younger one."""
    networks = {span.network.version: _bounds(span.network) for span in config.ranges}
    held = {version: _Held() for version in networks}
    served: list[Lease] = []
    problems: list[Problem] = []
    for lease in leases:
        bounds = [(prefix.version, *_bounds(prefix)) for prefix in lease.subnet.prefixes]
        if not all(
            version in networks and networks[version][0] <= first and last <= networks[version][1]
            for version, first, last in bounds
        ):
            problems.append(_outside(lease, config))
            continue
        holders = (held[version].find_holder(first, last) for version, first, last in bounds)
        if (holder := next(filter(None, holders), None)) is not None:
            problems.append(_overlap(lease, holder))
            continue
        for version, first, last in bounds:
            held[version].add(first, last, lease)
        served.append(lease)
    return _Judgement(tuple(served), tuple(problems))


def _bounds(prefix: IPNetwork) -> tuple[int, int]:
    first = int(prefix.network_address)
    return first, first + (1 << (prefix.max_prefixlen - prefix.prefixlen)) - 1


def _outside(lease: Lease, config: NetworkConfig) -> Problem:
    network = " and ".join(str(span.network) for span in config.ranges)
    text = f"lease {lease.subnet} of {_holder(lease)} is outside the network {network} and not served"
    release = f"Release the reservation: `overlayd leases release {lease.subnet}`"
    claim = "Let its node claim a new one, or delete its key in the store"
    return Problem("lease-outside", text, release if lease.is_reservation else claim)


def _overlap(lease: Lease, older: Lease) -> Problem:
    text = (
        f"lease {lease.subnet} of {_holder(lease)} overlaps the older lease {older.subnet} of {_holder(older)}"
        " and is not served"
    )
    return Problem("lease-overlap", text, "Let its node claim a new one, or delete its key in the store")


def _holder(lease: Lease) -> str:
    return lease.attributes.node_name or lease.attributes.identity


def _capped(problems: Iterable[Problem]) -> Iterator[Problem]:
    """Yield the problems in order, at most NAMED of one code, then how many more there are."""
    for code, group in groupby(sorted(problems), key=lambda problem: problem.code):
        same = list(group)
        yield from same[:NAMED]
        if len(same) > NAMED:
            yield Problem(code, f"{len(same) - NAMED} more problems of this kind ({code})")
