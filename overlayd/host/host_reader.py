"""Reading one HostSnapshot: what stands in the kernel's tables, what others' firewalls do, what was dropped for
us."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from ipaddress import IPv4Address

from overlayd.core.firewall.conflicts import ForeignFirewalls
from overlayd.core.host.snapshot import HostQuestion, HostSnapshot
from overlayd.core.host.stale_addresses import UsedAddress
from overlayd.core.host.underlay import InterfaceSelector, Reaching
from overlayd.core.network.addresses import IPAddress
from overlayd.core.status.problem import Problem
from overlayd.host.netlink.connection import Netlink
from overlayd.host.netlink.dumps import read_host_facts
from overlayd.host.netlink.route_get import find_route_lookup
from overlayd.host.preflight import probe
from overlayd.host.stale_addresses import read_used_addresses


class HostReader:
    """A HostProbe over this host's kernel.

    `read_drops` tells how many packets the kernel's filter has dropped for us, by reason, and
    `look_at_firewalls` who else has a firewall here; both raise OSError.
    """

    def __init__(
        self,
        netlink: Netlink,
        selector: InterfaceSelector,
        read_drops: Callable[[], Mapping[str, int]],
        look_at_firewalls: Callable[[], Awaitable[ForeignFirewalls]],
    ) -> None:
        self._netlink = netlink
        self._selector = selector
        self._read_drops = read_drops
        self._look_at_firewalls = look_at_firewalls
        self._last = HostSnapshot()

    async def look(self, question: HostQuestion) -> HostSnapshot:
        """Where nothing can be read, what was read last is told again, with the reason."""
        try:
            self._last = await self._look(question)
        except OSError as error:
            return HostSnapshot(
                facts=self._last.facts,
                firewalls=self._last.firewalls,
                drops=self._last.drops,
                unreadable=f"the kernel can't be asked: {error}",
            )
        return self._last

    async def _look(self, question: HostQuestion) -> HostSnapshot:
        facts = await read_host_facts(self._netlink)
        names = {link.index: link.name for link in facts.links}
        lookup = None
        if isinstance(self._selector, Reaching):
            lookup = await find_route_lookup(self._netlink, self._selector.address, names)
        problems: list[Problem] = []
        drops: Mapping[str, int] = {}
        try:
            drops = self._read_drops()
        except OSError as error:
            problems.append(Problem("kernel-silent", f"nf_tables can't be asked: {error}"))
        return HostSnapshot(
            facts,
            lookup,
            await probe(self._netlink, facts, question),
            await self._used_addresses(),
            await self._look_at_firewalls(),
            drops,
            {target: why for target in question.targets if (why := await self._why_unreachable(target, names))},
            tuple(problems),
        )

    async def _why_unreachable(self, target: IPAddress, names: dict[int, str]) -> str:
        """Say why the kernel sends nothing to this address, "" if it does."""
        if not isinstance(target, IPv4Address):
            return ""
        try:
            lookup = await find_route_lookup(self._netlink, target, names)
        except OSError as error:
            return error.strerror or str(error)
        return "" if lookup is not None else "no route leads there"

    async def _used_addresses(self) -> tuple[UsedAddress, ...]:
        return await read_used_addresses(self._netlink)
