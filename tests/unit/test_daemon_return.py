"""A daemon that restarts on what an earlier process left, and a store that is restored from a backup."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
import trio
import trio.testing

from overlayd.core.kernel.driver import Scope
from overlayd.core.leases.tenure import Belief
from overlayd.core.status.status import Verdict
from overlayd.testing.kernel import ForeignLink, ForeignRoute
from overlayd.testing.simulation.host import SimulatedHost
from overlayd.testing.store_link import Cut
from support.cluster import (
    FLANNEL,
    cluster,
    codes,
    delete,
    key_of,
    put,
    room_for,
    routes,
    subnet_of,
    write_config,
)

SCOPE = Scope(frozenset({"eth0"}))


async def test_a_node_that_is_stopped_goes_on_forwarding_and_comes_back_to_its_subnet(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with cluster(tmp_path, 0) as (store, _, nursery):
        node = SimulatedHost(1, store, tmp_path, nursery)
        await put(store, "subnets/10.244.7.0-24", FLANNEL)
        await nursery.start(node.run)
        await trio.sleep(5)
        before, first = subnet_of(node), await node.kernel.observe(SCOPE)
        node.kill()
        await trio.sleep(5)
        assert await node.kernel.observe(SCOPE) == first
        await nursery.start(node.run)
        await trio.sleep(5)
        assert subnet_of(node) == before
        assert await node.kernel.observe(SCOPE) == first
        assert {record.name for record in (await store.snapshot()).subnets} == {
            "subnets/10.244.7.0-24",
            key_of(node),
        }


async def test_a_restart_takes_nothing_away(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    async with cluster(tmp_path, 0) as (store, _, nursery):
        await put(store, "subnets/10.244.7.0-24", FLANNEL)
        node = SimulatedHost(1, store, tmp_path, nursery)
        await nursery.start(node.run)
        await trio.sleep(5)
        node.kill()
        node.kernel.applied.clear()
        node.store_link.conditions = replace(node.store_link.conditions, delay=3.0)
        await nursery.start(node.run)
        await trio.sleep(60)
        assert node.belief is Belief.HELD
        assert [str(operation) for operation, _ in node.kernel.applied] == []


async def test_peers_that_left_while_it_was_down_are_swept(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with cluster(tmp_path, 0) as (store, _, nursery):
        await put(store, "subnets/10.244.7.0-24", FLANNEL)
        node = SimulatedHost(1, store, tmp_path, nursery)
        await nursery.start(node.run)
        await trio.sleep(5)
        assert routes(node) == {"10.244.7.0/24"}
        node.kill()
        await delete(store, "subnets/10.244.7.0-24")
        await put(store, "subnets/10.244.8.0-24", FLANNEL)
        await nursery.start(node.run)
        await trio.sleep(5)
        assert routes(node) == {"10.244.8.0/24"}


async def test_a_subnet_file_that_names_a_strangers_subnet_is_withdrawn(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with cluster(tmp_path, 1, config=room_for(1)) as (store, [node], nursery):
        late = SimulatedHost(2, store, tmp_path, nursery)
        late.subnet_file.write_text(node.subnet_file.read_text())
        await nursery.start(late.run)
        await trio.sleep(60)
        assert late.keeper.served is None
        assert not late.subnet_file.exists()


async def test_a_store_that_went_back_is_named_and_everyone_has_a_subnet_again(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with cluster(tmp_path, 1) as (store, [first], nursery):
        backup = store.back_up()
        late = [SimulatedHost(number, store, tmp_path, nursery) for number in (2, 3)]
        for node in late:
            await nursery.start(node.run)
        await trio.sleep(100)
        nodes = [first, *late]
        before = [subnet_of(node) for node in nodes]
        for node in nodes:
            node.store_link.sever(Cut.SILENT)
        await trio.sleep(1)
        store.restore(backup)
        for node in nodes:
            node.store_link.mend()
        await trio.sleep(400)
        assert [subnet_of(node) for node in nodes] == before
        assert {node.belief for node in nodes} == {Belief.HELD}
        assert "store-went-back" in {vars(record).get("code") for record in caplog.records}


async def test_a_backup_from_before_a_restart_is_no_other_self(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with cluster(tmp_path, 0) as (store, _, nursery):
        node = SimulatedHost(1, store, tmp_path, nursery)
        await nursery.start(node.run)
        await trio.sleep(5)
        subnet, backup = subnet_of(node), store.back_up()
        node.kill()
        await nursery.start(node.run)
        await trio.sleep(20)
        store.restore(backup)
        await trio.sleep(400)
        assert (subnet_of(node), node.belief) == (subnet, Belief.HELD)


async def test_a_belief_that_a_backup_brings_back_waits_for_the_thaw(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """The handbook's procedure, with a node that had lost its subnet to another since the backup was made."""
    async with cluster(tmp_path, 1, config=room_for(1)) as (store, [first], nursery):
        backup = store.back_up()
        second = SimulatedHost(2, store, tmp_path, nursery)
        await nursery.start(second.run)
        first.store_link.sever(Cut.SILENT)
        await trio.sleep(80)
        assert (first.belief, second.belief) == (Belief.FENCED, Belief.HELD)
        second.store_link.sever(Cut.SILENT)  # it learns of nothing, and believes as long as it may
        store.restore(backup)
        frozen = await store.grant(60)
        await put(store, "overlayd/frozen", b"", frozen.lease_id)
        first.store_link.mend()
        both_believe = False
        for _ in range(300):
            both_believe |= first.belief is Belief.HELD and second.belief is Belief.HELD
            await trio.sleep(0.2)
        assert not both_believe
        second.store_link.mend()
        await trio.sleep(300)
        assert {first.belief, second.belief} >= {Belief.HELD}
        assert (first.belief, second.belief) != (Belief.HELD, Belief.HELD)


async def test_a_lease_that_stands_is_kept_at_a_restart_whatever_preflight_says(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with cluster(tmp_path, 2) as (_, [node, other], nursery):
        subnet = subnet_of(node)
        node.kill()
        half = next(IPv4Network(subnet_of(other)).subnets())
        node.kernel.add_route(ForeignRoute(half, "eth0", IPv4Address("10.99.9.9")))
        await nursery.start(node.run)
        await trio.sleep(300)
        assert (subnet_of(node), node.belief) == (subnet, Belief.HELD)
        assert codes(node) == {"network-overlap"}, "the obstacle is named for as long as it lasts"
        assert subnet in routes(other)
        assert node.subnet_file.exists()
        del node.kernel.routes[half]
        node.kernel.hint()
        await trio.sleep(5)
        assert node.answer().verdict is Verdict.HEALTHY


async def test_a_record_that_was_overwritten_by_hand_is_taken_back(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """As `etcdctl put KEY oops` does: the key is no longer on the node's grant."""
    async with cluster(tmp_path, 2) as (store, [node, other], _):
        subnet, grant = subnet_of(node), node.keeper.lease_id
        await put(store, key_of(node), b"oops")
        await trio.sleep(5)
        assert (subnet_of(node), node.belief) == (subnet, Belief.HELD)
        [record] = [one for one in (await store.snapshot()).subnets if one.name == key_of(node)]
        assert record.lease_id == grant
        assert subnet in routes(other)
        assert other.answer().verdict is Verdict.HEALTHY


async def test_subnets_become_smaller_on_a_node_with_pods(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with cluster(tmp_path, 2) as (store, [node, _other], _):
        old = IPv4Network(subnet_of(node))
        node.kernel.add_link(ForeignLink("cni0", kind="bridge"))
        node.kernel.add_route(ForeignRoute(old, "cni0"))
        node.kernel.hint()
        await trio.sleep(60)
        assert node.answer().verdict is Verdict.HEALTHY, "its own pods are in no one's way"
        await write_config(store, b'{"Network":"10.244.0.0/16","SubnetLen":26,"Backend":{"Type":"vxlan"}}')
        await trio.sleep(120)
        assert subnet_of(node).endswith("/26")
        assert "network-overlap" not in codes(node)
