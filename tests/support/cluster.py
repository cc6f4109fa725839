"""Short words for tests that script whole daemons (overlayd.testing.simulation.host) step by step."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from overlayd.core.kernel.items import ROUTE_PROTOCOL
from overlayd.core.leases.store import CONFIG, Delete, Put, Store, Transaction
from overlayd.testing.simulation.host import SimulatedHost
from overlayd.testing.simulation.invariants import find_overlap
from overlayd.testing.store import SimulatedStore

VXLAN = b'{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}'
"""A network config with a subnet for every node of a test."""
FLANNEL = (
    b'{"PublicIP":"10.99.0.77","PublicIPv6":null,"BackendType":"vxlan",'
    b'"BackendData":{"VNI":1,"VtepMAC":"7a:eb:33:ad:22:5c"}}'
)
"""The record of a flannel node."""


def room_for(subnets: int) -> bytes:
    """Make a network config with so many subnets of length 24."""
    return (
        b'{"Network":"10.244.0.0/16","SubnetLen":24,"SubnetMin":"10.244.1.0","SubnetMax":"10.244.%d.0"}' % subnets
    )


@asynccontextmanager
async def cluster(
    home: Path, count: int, config: bytes | None = VXLAN, ttl: int = 60
) -> AsyncGenerator[tuple[SimulatedStore, list[SimulatedHost], trio.Nursery]]:
    """Run so many nodes, which have found each other if there is a config; all of it ends with the context."""
    store = SimulatedStore(lambda: None)
    if config is not None:
        await write_config(store, config)
    async with trio.open_nursery() as nursery:
        nodes = [SimulatedHost(number, store, home, nursery, ttl=ttl) for number in range(1, count + 1)]
        for node in nodes:
            await nursery.start(node.run)
        await trio.sleep(5 if nodes else 0)
        yield store, nodes, nursery
        nursery.cancel_scope.cancel()


async def write_config(store: Store, config: bytes) -> None:
    await put(store, CONFIG, config)


async def put(store: Store, name: str, value: bytes, lease_id: int = 0) -> None:
    await store.commit(Transaction((), (Put(name, value, lease_id),)))


async def delete(store: Store, name: str) -> None:
    await store.commit(Transaction((), (Delete(name),)))


def subnet_of(node: SimulatedHost) -> str:
    served = node.keeper.served
    assert served is not None
    return str(served.subnet)


def key_of(node: SimulatedHost) -> str:
    return "subnets/" + subnet_of(node).replace("/", "-")


def codes(node: SimulatedHost) -> set[str]:
    """The codes of the problems in the node's status."""
    return {problem.code for problem in node.answer().status.problems}


def routes(node: SimulatedHost) -> set[str]:
    """The destinations of the routes that the daemon has set."""
    return {
        str(destination)
        for destination, found in node.kernel.routes.items()
        if any(route.protocol == ROUTE_PROTOCOL for route in found)
    }


def assert_no_subnet_is_held_twice(nodes: list[SimulatedHost]) -> None:
    overlap = find_overlap(nodes)
    assert not overlap, overlap
