"""A scenario as a value: how many nodes, which network, and the faults, all drawn from a seed.

Faults are independent of one another: leaving one out changes nothing about the others, so a failing scenario can
be shrunk.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

QUIET_START = 40.0
"""Seconds before the first fault, within which a cluster must be up."""
KINDS = {
    "daemon-kill": 3,
    "etcd-outage": 3,
    "partition": 4,
    "lossy": 3,
    "etcd-wiped-watch": 2,
    "etcd-restore": 1,
    "garbage-key": 2,
    "lease-revoked": 2,
    "lease-deleted": 1,
    "lease-stolen": 1,
    "lease-edited": 1,
    "suspend": 3,
    "stop": 3,
    "link-flap": 1,
    "device-deleted": 1,
    "mac-changed": 1,
    "entry-deleted": 2,
    "address-changed": 2,
    "stale-start": 1,
    "config-changed": 2,
    "config-broken": 1,
    "one-bad-entry": 1,
    "disk-full": 1,
    "frozen-claims": 1,
    "reservation": 1,
}
"""Every fault by its name in docs/checks.md, where it has one, with its relative frequency."""
BY_HAND = frozenset({"lease-revoked", "lease-deleted", "lease-stolen", "lease-edited"})
"""These break an assumption of the promise about leases (docs/leases.md), which is suspended for one TTL.

So does an etcd-restore, unless it follows docs/operations.md, which its salt decides."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault from `at`, for `lasts` seconds, on the node of this number if it is one node's.

    `salt` decides everything else about it.
    """

    kind: str
    at: float
    lasts: float
    node: int
    salt: int

    def __str__(self) -> str:
        return f"{self.kind} n{self.node} at {self.at:.0f} s for {self.lasts:.0f} s (salt {self.salt})"


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario.  `ttl` in seconds; `subnets` is how many the network has, None for more than enough."""

    seed: int
    nodes: int
    ttl: int
    subnets: int | None
    faults: tuple[Fault, ...]

    @property
    def faults_end(self) -> float:
        return max((fault.at + fault.lasts for fault in self.faults), default=QUIET_START)

    def __str__(self) -> str:
        limit = "" if self.subnets is None else f", {self.subnets} subnets"
        faults = "".join(f"\n  {fault}" for fault in self.faults)
        return f"seed {self.seed}: {self.nodes} nodes, TTL {self.ttl} s{limit}{faults}"


def draw_scenario(seed: int) -> Scenario:
    """Draw the scenario of a seed."""
    chance = random.Random(f"episode {seed}")  # this text is part of what a recorded seed means
    count = chance.randint(3, 8)
    ttl = chance.choice([30, 30, 45, 60])
    subnets = count + chance.choice([-1, 0, 1]) if chance.random() < 0.4 else None
    faults = []
    at = QUIET_START
    for _ in range(chance.randint(1, 9)):
        [kind] = chance.choices(list(KINDS), list(KINDS.values()))
        lasts = chance.choice([1.0, 5.0, 20.0, 1.5 * ttl, 3.0 * ttl]) * chance.uniform(0.7, 1.3)
        faults.append(Fault(kind, at, lasts, chance.randint(1, count), chance.getrandbits(32)))
        at += chance.choice([0.0, 1.0, 10.0, 40.0]) * chance.uniform(0.5, 1.5)
    return Scenario(seed, count, ttl, subnets, tuple(faults))
