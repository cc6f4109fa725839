"""The seam to whatever decides how this node gets its subnet and keeps it.

A Claimer is a frozen value with one pure step.  The LeaseRunner feeds it events, and has its commands carried out
by the store's side (see source.py).  The rest of the node reads its Tenure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

from overlayd.core.leases.book import StoredConfig
from overlayd.core.leases.lease import Attributes
from overlayd.core.leases.tenure import Tenure
from overlayd.core.network.addresses import Subnet
from overlayd.core.network.config import NetworkConfig

Event = TypeVar("Event", contravariant=True)
Command = TypeVar("Command", covariant=True)


@dataclass(frozen=True, slots=True)
class Claimant:
    """The claiming node, in one run of its daemon.

    `ttl` is the seconds that its lease is to live without a renewal.  `previous` is the subnet that an earlier
    life published, which is claimed again if it can be.
    """

    node_id: str
    incarnation: str
    ttl: int
    previous: Subnet | None = None


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """The node's present request to its claimer.

    `config` is the one that it goes by, as it read it in `stored`; `attributes` are what its lease is to say.
    Unless it `may_claim`, as its host is not fit for that, it claims no new subnet; a lease of its own that stands
    is adopted and renewed all the same.
    """

    config: NetworkConfig
    stored: StoredConfig
    attributes: Attributes
    may_claim: bool = True


class Claimer(Protocol[Event, Command]):
    """Decides how this node gets its subnet and keeps it."""

    @property
    def tenure(self) -> Tenure: ...

    def step(self, event: Event, now: float, chance: float) -> tuple[Self, Command | None]:
        """Absorb one event, then decide.

        `now` is in seconds of CLOCK_BOOTTIME, `chance` a random number with 0 ≤ chance < 1.  No second command is
        given until the outcome of the first has come back as an event.
        """
        ...

    def wake_at(self, stepped_at: float) -> float | None:
        """Tell when time alone brings something new after a step at `stepped_at`; None if only an event can."""
        ...
