"""A whole daemon, on a store in memory and a fake kernel: what it does about its lease, and what befalls that."""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path

import pytest
import trio
import trio.testing

from overlayd.core.leases.admin import make_reservation
from overlayd.core.leases.tenure import Belief
from overlayd.core.network.addresses import Subnet
from overlayd.core.status.status import Verdict
from overlayd.node.subnet_guard import SubnetChanged
from overlayd.testing.simulation.host import SimulatedHost
from overlayd.testing.store_link import Cut
from support.cluster import (
    FLANNEL,
    VXLAN,
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


async def test_an_own_key_that_vanishes_is_claimed_again(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with cluster(tmp_path, 2) as (store, nodes, _):
        node = nodes[0]
        before = subnet_of(node)
        await delete(store, key_of(node))
        await trio.sleep(5)
        assert (subnet_of(node), node.belief) == (before, Belief.HELD)
        await store.revoke(node.keeper.lease_id)
        await trio.sleep(5)
        assert (subnet_of(node), node.belief) == (before, Belief.HELD)
        assert routes(nodes[1]) == {before}


async def test_a_stolen_subnet_is_given_up_and_another_one_taken(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with cluster(tmp_path, 2) as (store, nodes, _):
        node, stolen = nodes[0], subnet_of(nodes[0])
        await put(store, key_of(node), FLANNEL)
        await trio.sleep(5)
        assert subnet_of(node) != stolen
        assert node.belief is Belief.HELD
        assert stolen in routes(node), "the thief is a peer now"
        assert routes(nodes[1]) == {stolen, subnet_of(node)}
        assert str(IPv4Network(subnet_of(node))[1]) in node.subnet_file.read_text()


async def test_a_record_that_was_edited_is_put_right(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with cluster(tmp_path, 1) as (store, _nodes, _):
        [record] = (await store.snapshot()).subnets
        await put(store, record.name, record.value.replace(b"10.99.0.1", b"10.99.0.9"), record.lease_id)
        await trio.sleep(5)
        [mended] = (await store.snapshot()).subnets
        assert (mended.value, mended.lease_id) == (record.value, record.lease_id)
        revision = mended.mod_revision
        await trio.sleep(300)
        assert [r.mod_revision for r in (await store.snapshot()).subnets] == [revision], "and then left alone"


async def test_a_damaged_own_record_is_written_anew_and_the_subnet_kept(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with cluster(tmp_path, 2) as (store, [node, other], _):
        subnet, key, grant = subnet_of(node), key_of(node), node.keeper.lease_id
        await put(store, key, b"\xff", grant)
        await trio.sleep(5)
        assert (subnet_of(node), node.belief) == (subnet, Belief.HELD)
        assert len((await store.snapshot()).subnets) == 2
        assert other.answer().verdict is Verdict.HEALTHY


async def test_a_flannel_record_of_this_node_is_taken_over(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with cluster(tmp_path, 0) as (store, _, nursery):
        await put(store, "subnets/10.244.33.0-24", FLANNEL.replace(b"10.99.0.77", b"10.99.0.1"))
        node = SimulatedHost(1, store, tmp_path, nursery)
        await nursery.start(node.run)
        await trio.sleep(5)
        assert subnet_of(node) == "10.244.33.0/24"
        [record] = (await store.snapshot()).subnets
        assert b'"NodeID":"id1"' in record.value
        assert record.lease_id == 0, "it was a reservation, and stays one"
        assert node.answer().verdict is Verdict.HEALTHY


async def test_out_of_subnets_is_a_clear_state_and_ends_when_one_comes_free(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with cluster(tmp_path, 3, config=room_for(2)) as (store, nodes, _):
        waiting = next(node for node in nodes if node.keeper.served is None)
        answer = waiting.answer()
        assert answer.verdict is Verdict.DEGRADED
        assert "out-of-subnets" in codes(waiting)
        assert len(routes(waiting)) == 2, "it still reaches the others"
        leaver = next(node for node in nodes if node is not waiting)
        freed = subnet_of(leaver)
        leaver.store_link.sever(Cut.SILENT)
        await store.revoke(leaver.keeper.lease_id)
        await trio.sleep(5)
        assert subnet_of(waiting) == freed
        assert waiting.answer().verdict is Verdict.HEALTHY


async def test_an_outage_of_the_store_cuts_off_nobody_and_is_never_called_healthy(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with cluster(tmp_path, 2) as (_, nodes, _nursery):
        before = [routes(node) for node in nodes]
        for node in nodes:
            node.store_link.sever(Cut.SILENT)
        await trio.sleep(30)
        assert nodes[0].answer().verdict is Verdict.DEGRADED
        await trio.sleep(600)
        assert nodes[0].belief is Belief.FENCED
        answer = nodes[0].answer()
        assert answer.verdict is Verdict.UNKNOWN
        assert "could not be renewed" in answer.reason
        assert [routes(node) for node in nodes] == before
        assert nodes[0].subnet_file.exists()
        for node in nodes:
            node.store_link.mend()
        await trio.sleep(60)
        assert [node.answer().verdict for node in nodes] == [Verdict.HEALTHY] * 2
        assert [routes(node) for node in nodes] == before


async def test_a_strict_fence_stops_forwarding_at_the_deadline_and_opens_again(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with cluster(tmp_path, 2) as (store, nodes, nursery):
        strict = SimulatedHost(3, store, tmp_path, nursery, strict_fence=True)
        await nursery.start(strict.run)
        await trio.sleep(5)
        subnet = subnet_of(strict)
        for node in (strict, nodes[0]):
            node.store_link.sever(Cut.SILENT)
        await trio.sleep(52)
        assert (strict.belief, nodes[0].belief) == (Belief.FENCED, Belief.FENCED)
        assert (len(routes(strict)), len(routes(nodes[0]))) == (0, 2)
        assert not strict.subnet_file.exists()
        for node in (strict, nodes[0]):
            node.store_link.mend()
        await trio.sleep(30)
        assert (subnet_of(strict), strict.belief) == (subnet, Belief.HELD)
        assert len(routes(strict)) == 2
        assert strict.subnet_file.exists()


async def test_a_reservation_is_held_by_a_key_on_the_nodes_grant(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with cluster(tmp_path, 0) as (store, _, nursery):
        mine = FLANNEL[:-1] + b',"Overlayd":{"NodeID":"id1","NodeName":"node1"}}'
        await put(store, "subnets/10.244.50.0-24", mine)
        node = SimulatedHost(1, store, tmp_path, nursery)
        await nursery.start(node.run)
        await trio.sleep(5)
        assert (subnet_of(node), node.belief) == ("10.244.50.0/24", Belief.HELD)
        snapshot = await store.snapshot()
        assert [record.lease_id for record in snapshot.subnets] == [0], "it stays a reservation"
        [hold] = snapshot.own
        assert (hold.name, hold.lease_id) == ("overlayd/held/10.244.50.0-24", node.keeper.lease_id)
        node.kill()
        await nursery.start(node.run)
        await trio.sleep(5)
        assert (subnet_of(node), node.belief) == ("10.244.50.0/24", Belief.HELD)
        [hold] = (await store.snapshot()).own
        assert hold.lease_id == node.keeper.lease_id, "the next process took the hold over"
        node.store_link.sever(Cut.SILENT)
        await trio.sleep(300)
        assert node.belief is Belief.FENCED
        assert not (await store.snapshot()).own
        node.store_link.mend()
        await trio.sleep(60)
        assert (subnet_of(node), node.belief) == ("10.244.50.0/24", Belief.HELD)
        await delete(store, "subnets/10.244.50.0-24")
        await trio.sleep(5)
        snapshot = await store.snapshot()
        assert (subnet_of(node), node.belief) == ("10.244.50.0/24", Belief.HELD)
        assert [record.lease_id for record in snapshot.subnets] == [node.keeper.lease_id], "an ordinary lease now"
        assert not snapshot.own


async def test_a_subnet_that_an_operator_reserved_for_the_node_meanwhile_is_taken(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with cluster(tmp_path, 1) as (store, [node], _):
        subnet = subnet_of(node)
        node.store_link.sever(Cut.SILENT)
        await trio.sleep(100)
        await store.commit(make_reservation(await store.snapshot(), Subnet.parse(subnet), "id1"))
        node.store_link.mend()
        await trio.sleep(60)
        assert (subnet_of(node), node.belief) == (subnet, Belief.HELD)
        assert node.keeper.held is not None
        assert node.keeper.held.is_reservation


async def test_a_reservation_that_its_node_had_to_leave_is_not_served_beside_its_lease(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Its record still says where the node is, and both have the same VTEP."""
    async with cluster(tmp_path, 1) as (store, [other], nursery):
        await store.commit(make_reservation(await store.snapshot(), Subnet.parse("10.244.50.0/24"), "id2"))
        node = SimulatedHost(2, store, tmp_path, nursery)
        await nursery.start(node.run)
        await trio.sleep(5)
        assert routes(other) == {"10.244.50.0/24"}
        await write_config(store, VXLAN.replace(b"{", b'{"SubnetLen":25,', 1))
        await trio.sleep(60)
        assert subnet_of(node).endswith("/25")
        assert routes(other) == {subnet_of(node)}
        assert [each.answer().verdict for each in (node, other)] == [Verdict.HEALTHY] * 2
        assert "subnets/10.244.50.0-24" in {record.name for record in (await store.snapshot()).subnets}
        await write_config(store, VXLAN)
        await trio.sleep(60)
        assert subnet_of(node) == "10.244.50.0/24", "the operator's choice, once it fits again"
        assert routes(other) == {subnet_of(node)}


async def test_nothing_is_claimed_while_claims_are_frozen(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with cluster(tmp_path, 1) as (store, [node], nursery):
        await put(store, "overlayd/frozen", b"")
        late = SimulatedHost(2, store, tmp_path, nursery)
        await nursery.start(late.run)
        await trio.sleep(100)
        assert codes(late) == {"claims-frozen"}
        assert node.belief is Belief.HELD, "who has one keeps it"
        await delete(store, "overlayd/frozen")
        await trio.sleep(5)
        assert late.answer().verdict is Verdict.HEALTHY


async def test_writes_that_cannot_succeed_are_not_hurried(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """With a bad config in the store no claim can be right: none is tried, and the store is left in peace."""
    async with cluster(tmp_path, 1) as (store, [node], _):
        await write_config(store, b"{")
        await delete(store, key_of(node))
        requests: list[SimulatedHost] = []
        node.asked = requests.append
        await trio.sleep(60)
        assert 0 < len(requests) < 40
        assert {"config-invalid", "lease-unclaimed"} <= codes(node)
        await write_config(store, VXLAN)
        await trio.sleep(5)
        assert node.belief is Belief.HELD


async def test_second_daemon_with_the_same_identity_is_named_and_not_fought(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with cluster(tmp_path, 1) as (store, [node], nursery):
        subnet = subnet_of(node)
        clone = SimulatedHost(1, store, tmp_path, nursery, seed=1)
        await nursery.start(clone.run)
        await trio.sleep(10)
        assert (subnet_of(clone), clone.belief) == (subnet, Belief.HELD)
        assert codes(node) == {"lease-lost", "other-self"}
        revision = (await store.snapshot()).revision
        await trio.sleep(300)
        assert (await store.snapshot()).revision == revision, "neither fights"
        await delete(store, key_of(clone))
        clone.store_link.sever(Cut.SILENT)
        await trio.sleep(5)
        assert node.belief is Belief.HELD


async def test_a_new_subnet_ends_the_daemon_if_it_was_told_so(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    with pytest.RaisesGroup(SubnetChanged, flatten_subgroups=True):
        async with cluster(tmp_path, 0) as (store, _, nursery):
            node = SimulatedHost(1, store, tmp_path, nursery, exit_on_new_subnet=True)
            await nursery.start(node.run)
            await trio.sleep(5)
            await delete(store, key_of(node))
            await trio.sleep(5)
            assert node.belief is Belief.HELD, "the same subnet again is no change"
            await put(store, key_of(node), FLANNEL)
            await trio.sleep(60)
