"""The world around a driver, played by a test: the same moves on the fake kernel and on the real one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address, ip_network
from typing import Protocol

from overlayd.core.kernel.driver import Driver
from overlayd.core.kernel.items import FdbEntry, Item, Link, Neighbour, Route
from overlayd.core.network.addresses import IPNetwork, Mac
from overlayd.host.netlink.driver import open_netlink_driver
from overlayd.testing.kernel import FakeKernel, ForeignLink, ForeignRoute
from overlayd_backends.udp.driver import TUN_DEVICE
from support.netns import bridge, ip, node


class DriverWorld(Protocol):
    """A node with `eth0` (10.99.0.1/16) and `wire`, both up, and nothing of ours."""

    @property
    def driver(self) -> Driver: ...

    def set_link(self, name: str, *, up: bool | None = None, mac: Mac | None = None) -> None: ...

    def delete_link(self, name: str) -> None: ...

    def add_foreign_link(self, name: str) -> None: ...

    def put_route(self, route: ForeignRoute, *, in_front: bool = True) -> None: ...

    def routes(self, destination: IPNetwork) -> list[ForeignRoute]:
        """In the kernel's order, the one in effect first."""
        ...

    def delete(self, item: Item) -> None: ...

    def put(self, item: FdbEntry | Neighbour) -> None: ...


LATENCIES = {"fake": 0.0, "slow fake": 0.01}
"""Seconds that a call takes, by the name of the fake kernel."""


class FakeDriverWorld:
    def __init__(self, latency: float = 0.0) -> None:
        self.driver = FakeKernel(latency=latency)
        for name in ("eth0", "wire"):
            self.driver.add_link(ForeignLink(name))
        self.set_link = self.driver.set_link
        self.delete_link = self.driver.delete_link
        self.put_route = self.driver.add_route
        self.delete = self.driver.delete
        self.put = self.driver.put

    def add_foreign_link(self, name: str) -> None:
        self.driver.add_link(ForeignLink(name))

    def routes(self, destination: IPNetwork) -> list[ForeignRoute]:
        return list(self.driver.routes.get(destination, []))


class RealDriverWorld:
    def __init__(self, netns: str, driver: Driver) -> None:
        self.netns = netns
        self.driver = driver

    def set_link(self, name: str, *, up: bool | None = None, mac: Mac | None = None) -> None:
        if mac is not None:
            ip(self.netns, f"link set {name} address {mac}")
        if up is not None:
            ip(self.netns, f"link set {name} {'up' if up else 'down'}")

    def delete_link(self, name: str) -> None:
        ip(self.netns, f"link delete {name}")

    def add_foreign_link(self, name: str) -> None:
        ip(self.netns, f"link add {name} type bridge")
        ip(self.netns, f"link set {name} up")

    def put_route(self, route: ForeignRoute, *, in_front: bool = True) -> None:
        via = f"via {route.gateway}" if route.gateway else ""
        onlink = "onlink" if route.onlink else ""
        ip(
            self.netns,
            f"route {'prepend' if in_front else 'append'} {route.destination} {via} dev {route.link} "
            f"proto {route.protocol} {onlink}",
        )

    def routes(self, destination: IPNetwork) -> list[ForeignRoute]:
        return [
            ForeignRoute(
                ip_network(row["dst"]),
                row["dev"],
                ip_address(row["gateway"]) if "gateway" in row else None,
                int(row["protocol"]),
                "onlink" in row["flags"],
            )
            for row in json.loads(ip(self.netns, f"-N -j route show exact {destination}"))
        ]

    def delete(self, item: Item) -> None:
        match item:
            case Link():
                self.delete_link(item.name)
            case FdbEntry():
                bridge(self.netns, f"fdb delete {item.mac} dev {item.link}")
            case Neighbour():
                ip(self.netns, f"neighbour delete {item.address} dev {item.link}")
            case Route():
                via = f"via {item.gateway}" if item.gateway is not None else ""
                ip(self.netns, f"route delete {item.destination} {via} dev {item.link} proto 111")
            case _:
                raise NotImplementedError(item)

    def put(self, item: FdbEntry | Neighbour) -> None:
        if isinstance(item, FdbEntry):
            bridge(self.netns, f"fdb replace {item.mac} dev {item.link} dst {item.destination} self permanent")
        else:
            ip(self.netns, f"neighbour replace {item.address} lladdr {item.mac} dev {item.link} nud permanent")


@asynccontextmanager
async def open_real_world() -> AsyncIterator[RealDriverWorld]:
    with node() as netns:
        async with open_netlink_driver(netns, [TUN_DEVICE]) as driver:
            yield RealDriverWorld(netns, driver)
