"""One observation of the host, and what may be asked for in it: all that a pass knows of the machine.

Every decision of a pass (underlay, preflight, stale addresses, firewalls) reads the same snapshot, so no two of
them can disagree about the host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from overlayd.core.firewall.conflicts import ForeignFirewalls
from overlayd.core.host.interest import Interest
from overlayd.core.host.preflight import HostFindings
from overlayd.core.host.stale_addresses import UsedAddress
from overlayd.core.host.underlay import HostFacts, RouteLookup
from overlayd.core.network.addresses import IPAddress
from overlayd.core.network.backend import HostRequirements
from overlayd.core.network.view import Underlay
from overlayd.core.status.problem import Problem


@dataclass(frozen=True, slots=True)
class HostQuestion:
    """The questions of a snapshot that the kernel's tables do not answer.

    `requirements` are those of a network config that is not in force yet: they are probed for, over `underlay`.
    None: nothing is probed.  `targets` are addresses of peers that may be unreachable: the kernel is asked for its
    route to each.  Of routes only those of `interest` need be in the snapshot.
    """

    requirements: HostRequirements | None = None
    underlay: Underlay | None = None
    targets: tuple[IPAddress, ...] = ()
    interest: Interest = field(default_factory=Interest)


@dataclass(frozen=True, slots=True)
class HostSnapshot:
    """The state of the host at one instant.

    `lookup` is the way to the address of a `Reaching` selector.  `findings` are there where they were asked for.
    `drops` are packets that the kernel's filter dropped for us, by reason.  `unreachable` are those of the
    question's targets that the kernel has no route to, with its reason.  `problems` name what could not be
    looked at; `unreadable` is why nothing could be, "" otherwise.
    """

    facts: HostFacts = field(default_factory=HostFacts)
    lookup: RouteLookup | None = None
    findings: HostFindings | None = None
    used_addresses: tuple[UsedAddress, ...] = ()
    firewalls: ForeignFirewalls = field(default_factory=ForeignFirewalls)
    drops: Mapping[str, int] = field(default_factory=dict)
    unreachable: Mapping[IPAddress, str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    unreadable: str = ""


class HostProbe(Protocol):
    """The host of one network namespace, or a fake."""

    async def look(self, question: HostQuestion) -> HostSnapshot:
        """Observe the host without changing it.  What can't be read is said in the snapshot; nothing is raised."""
        ...

    def watch(self, on_change: Callable[[], None]) -> AbstractAsyncContextManager[None]:
        """Call `on_change`, while open, when an answer to the last question may have changed."""
        ...
