"""Opening all drivers of a host: its kernel, its packet filters, and those that are installed beside."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from overlayd.core.firewall.conflicts import ForeignFirewalls
from overlayd.core.kernel.datapath import DatapathUnavailableError
from overlayd.core.kernel.driver import Driver, OpenDriver
from overlayd.host.composite_driver import CompositeDriver
from overlayd.host.firewall_conflicts import open_foreign_firewall_reader
from overlayd.host.netlink.driver import open_netlink_driver
from overlayd.host.nft.driver import open_nft
from overlayd.host.persistent_driver import PersistentDriver, state_file


@dataclass(frozen=True)
class HostDrivers:
    """`driver` is all of them as one.  `read_drops` tells how many packets the kernel's filter has dropped for us,
    by reason, and `look_at_firewalls` who else has a firewall here; both raise OSError."""

    driver: CompositeDriver
    read_drops: Callable[[], Mapping[str, int]]
    look_at_firewalls: Callable[[], Awaitable[ForeignFirewalls]]


@asynccontextmanager
async def open_drivers(
    installed: Mapping[str, OpenDriver],
    implementation: str | None = None,
    run_dir: Path | None = None,
    netns: str | None = None,
) -> AsyncGenerator[HostDrivers, None]:
    """Open the drivers of this network namespace, or of another one (see `in_netns`).

    `installed` are those of other packages, by name; `implementation` is for them.  `run_dir`: where to keep what
    lives in this process, None for nowhere.  Raises DatapathUnavailableError, also where two drivers claim one
    kind of items.
    """
    async with AsyncExitStack() as stack:
        others: list[Driver] = []
        for name, open_one in installed.items():
            other = await stack.enter_async_context(open_one(implementation))
            if other.is_volatile and run_dir is not None:
                other = PersistentDriver(other, state_file(run_dir, name))
                await other.resume()
            others.append(other)
        nft = stack.enter_context(open_nft(netns))
        iptables, firewalls = stack.enter_context(open_foreign_firewall_reader(netns))
        devices = [pattern for other in others for pattern in other.devices]
        kernel = await stack.enter_async_context(open_netlink_driver(netns, devices))
        try:
            driver = CompositeDriver([kernel, *others, nft, iptables])
        except ValueError as error:
            raise DatapathUnavailableError(f"of these drivers one must be uninstalled: {error}") from error
        yield HostDrivers(driver, nft.read_drops, firewalls.look)
