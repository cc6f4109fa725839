"""A HostProbe over a FakeKernel: what a daemon on a simulated host finds when it looks around."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv4Network

import trio

from overlayd.core.firewall.conflicts import ForeignFirewalls
from overlayd.core.host.preflight import HostFindings
from overlayd.core.host.snapshot import HostQuestion, HostSnapshot
from overlayd.core.host.stale_addresses import UsedAddress
from overlayd.core.host.underlay import HostAddress, HostFacts, HostLink, HostRoute
from overlayd.core.kernel.driver import is_our_device
from overlayd.core.kernel.items import Link
from overlayd.core.network.addresses import IPAddress
from overlayd.testing.kernel import FakeKernel, ForeignLink

LINK = "eth0"
"""The interface of the underlay."""


class FakeHostProbe:
    """A host with one address on `eth0`, set by the test, and whatever stands in `kernel`.

    `findings` are what probing finds, `used_addresses` and `firewalls` what else there is; `unreadable` is why
    nothing can be read, "" if it can.
    """

    def __init__(self, kernel: FakeKernel, address: IPAddress, network: IPv4Network) -> None:
        self.kernel = kernel
        self.address = address
        self.network = network
        self.findings = HostFindings()
        self.used_addresses: tuple[UsedAddress, ...] = ()
        self.firewalls = ForeignFirewalls()
        self.unreadable = ""

    async def look(self, question: HostQuestion) -> HostSnapshot:
        await trio.lowlevel.checkpoint()
        return HostSnapshot(
            self.facts(),
            findings=self.findings if question.requirements is not None else None,
            used_addresses=self.used_addresses,
            firewalls=self.firewalls,
            unreadable=self.unreadable,
        )

    @asynccontextmanager
    async def watch(self, on_change: Callable[[], None]) -> AsyncGenerator[None, None]:
        """Tell of every change of the kernel: a fake host has no life of its own beside it."""
        async with self.kernel.watch(lambda _: on_change()):
            yield

    def facts(self) -> HostFacts:
        """List links, addresses and routes as the kernel would."""
        links = tuple(self._link(index, link) for index, link in enumerate(self.kernel.links.values(), 2))
        addresses = [HostAddress(LINK, self.address, self.network.prefixlen)]
        addresses += [HostAddress(item.link, item.address, item.prefixlen) for item in self.kernel.addresses]
        routes = [HostRoute(self.network, LINK, protocol=2)]
        routes += [
            HostRoute(route.destination, route.link, route.gateway, protocol=route.protocol)
            for found in self.kernel.routes.values()
            for route in found
        ]
        return HostFacts(links, tuple(addresses), tuple(routes))

    def _link(self, index: int, link: Link | ForeignLink) -> HostLink:
        if isinstance(link, ForeignLink):
            return HostLink(index, link.name, link.mtu, link.up, kind=link.kind)
        ours = is_our_device(self.kernel.devices, link.name, link.kind.word)
        return HostLink(
            index, link.name, link.mtu, link.up, kind=link.kind.word, mac=link.mac, tunnel=link.kind, ours=ours
        )
