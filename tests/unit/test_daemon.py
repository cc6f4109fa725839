"""A whole daemon, on a store in memory and a fake kernel: what it does about what it finds."""

from __future__ import annotations

import copy
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from ipaddress import IPv4Network
from pathlib import Path

import pytest
import trio
import trio.testing

from overlayd.core.dataplane import Scope
from overlayd.core.inventory import make_reservation
from overlayd.core.keeper import Belief
from overlayd.core.kernel import Link
from overlayd.core.model import Subnet
from overlayd.core.problem import Problem
from overlayd.core.status import PeerState, Verdict
from overlayd.core.store import Delete, Put, Transaction
from overlayd.core.strays import Inhabitant
from overlayd.daemon import SubnetChanged
from overlayd.store.memory import MemoryStore
from support.cluster import SimulatedNode, write_config

CONFIG = b'{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}'
SCOPE = Scope(frozenset({"eth0"}))
FLANNEL = (
    b'{"PublicIP":"10.99.0.77","PublicIPv6":null,"BackendType":"vxlan",'
    b'"BackendData":{"VNI":1,"VtepMAC":"7a:eb:33:ad:22:5c"}}'
)


@asynccontextmanager
async def cluster(
    home: Path, count: int, config: bytes | None = CONFIG, ttl: int = 60
) -> AsyncGenerator[tuple[MemoryStore, list[SimulatedNode], trio.Nursery]]:
    store = MemoryStore()
    if config is not None:
        await write_config(store, config)
    nodes = [SimulatedNode(number, store, home, ttl=ttl) for number in range(1, count + 1)]
    async with trio.open_nursery() as nursery:
        for node in nodes:
            nursery.start_soon(node.run)
        await trio.sleep(5)
        yield store, nodes, nursery
        nursery.cancel_scope.cancel()


async def put(store: MemoryStore, name: str, value: bytes, lease_id: int = 0) -> None:
    await store.commit(Transaction((), (Put(name, value, lease_id),)))


async def delete(store: MemoryStore, name: str) -> None:
    await store.commit(Transaction((), (Delete(name),)))


def subnet_of(node: SimulatedNode) -> str:
    served = node.keeper.served
    assert served is not None
    return str(served.subnet)


def key_of(node: SimulatedNode) -> str:
    return "subnets/" + subnet_of(node).replace("/", "-")


def codes(node: SimulatedNode) -> set[str]:
    return {problem.code for problem in node.daemon.answer().status.problems}


def routes(node: SimulatedNode) -> set[str]:
    return {str(to) for to, found in node.kernel.routes.items() if any(route.protocol == 111 for route in found)}


async def test_three_nodes_find_each_other(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    async with cluster(tmp_path, 3) as (_, nodes, _nursery):
        subnets = {subnet_of(node) for node in nodes}
        assert len(subnets) == 3
        for node in nodes:
            answer = node.daemon.answer()
            assert (answer.verdict, answer.reason) == (Verdict.HEALTHY, "")
            assert {peer.subnet for peer in answer.status.peers} == subnets - {subnet_of(node)}
            assert routes(node) == subnets - {subnet_of(node)}
            network = IPv4Network(subnet_of(node))
            assert node.subnet_file.read_text() == (
                "FLANNEL_NETWORK=10.244.0.0/16\n"
                f"FLANNEL_SUBNET={network[1]}/24\n"
                "FLANNEL_MTU=1450\n"
                "FLANNEL_IPMASQ=false\n"
            )


async def test_a_node_that_is_stopped_goes_on_forwarding_and_comes_back_to_its_subnet(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    store = MemoryStore()
    await write_config(store, CONFIG)
    node = SimulatedNode(1, store, tmp_path)
    await put(store, "subnets/10.244.7.0-24", FLANNEL)
    async with trio.open_nursery() as nursery:
        life = await nursery.start(node.run)
        await trio.sleep(5)
        before, first = subnet_of(node), await node.kernel.observe(SCOPE)
        life.cancel()
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
        nursery.cancel_scope.cancel()


async def test_peers_that_left_while_it_was_down_are_swept(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    store = MemoryStore()
    await write_config(store, CONFIG)
    await put(store, "subnets/10.244.7.0-24", FLANNEL)
    node = SimulatedNode(1, store, tmp_path)
    async with trio.open_nursery() as nursery:
        life = await nursery.start(node.run)
        await trio.sleep(5)
        assert routes(node) == {"10.244.7.0/24"}
        life.cancel()
        await delete(store, "subnets/10.244.7.0-24")
        await put(store, "subnets/10.244.8.0-24", FLANNEL)
        await nursery.start(node.run)
        await trio.sleep(5)
        assert routes(node) == {"10.244.8.0/24"}
        nursery.cancel_scope.cancel()


async def test_without_a_config_it_waits_and_says_for_what(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with cluster(tmp_path, 1, config=None) as (store, [node], _):
        await trio.sleep(500)
        answer = node.daemon.answer()
        assert answer.verdict is Verdict.DEGRADED
        [problem] = answer.status.problems
        assert problem.code == "no-config"
        assert "/coreos.com/network/config" in problem.text
        assert "overlayd config set" in problem.remedy
        await write_config(store, CONFIG)
        await trio.sleep(5)
        assert node.daemon.answer().verdict is Verdict.HEALTHY


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (b"{", "JSON"),
        (b'{"Network":"10.244.0.0/30"}', "Network"),
        (b'{"Network":"10.244.0.0/16","SubnetMin":"10.9.0.0"}', "SubnetMin"),
        (b'{"Network":"10.244.0.0/16","Backend":{"Type":"pigeon"}}', "pigeon"),
        (b'{"Network":"10.244.0.0/16","Backend":{"VNI":"one"}}', "VNI"),
        (b'{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/48"}', "IPv6 is not carried yet"),
    ],
)
async def test_a_bad_config_is_named_and_the_sound_one_before_it_stays_in_force(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, config: bytes, said: str
) -> None:
    async with cluster(tmp_path, 2) as (store, nodes, _):
        before = [(subnet_of(node), routes(node)) for node in nodes]
        await write_config(store, config)
        await trio.sleep(100)
        assert [(subnet_of(node), routes(node)) for node in nodes] == before
        [problem] = nodes[0].daemon.answer().status.problems
        assert problem.code == "config-invalid"
        assert said in problem.text
        await write_config(store, CONFIG)
        await trio.sleep(5)
        assert nodes[0].daemon.answer().verdict is Verdict.HEALTHY


async def test_a_changed_config_is_followed(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    async with cluster(tmp_path, 2) as (store, nodes, _):
        await write_config(store, b'{"Network":"10.245.0.0/16","Backend":{"Type":"vxlan","VNI":7}}')
        await trio.sleep(60)
        for node, other in (nodes, nodes[::-1]):
            assert subnet_of(node).startswith("10.245.")
            assert routes(node) == {subnet_of(other)}
            assert {name for name in node.kernel.links if name.startswith("ovl")} == {"ovl.7"}
            assert node.daemon.answer().verdict is Verdict.HEALTHY
        assert {record.name for record in (await store.snapshot()).subnets} == set(map(key_of, nodes))


async def test_bad_records_harm_nobody_but_themselves(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with cluster(tmp_path, 2) as (store, nodes, nursery):
        await put(store, "subnets/garbage", b"\x00\xff")
        await put(store, "subnets/10.244.200.0-24", b"[" * 10_000)
        await put(store, "subnets/10.244.201.0-24", b"x" * 1_000_000)
        await put(store, "subnets/192.168.0.0-24", FLANNEL)
        await put(store, "subnets/" + key_of(nodes[1]).removeprefix("subnets/").replace("-24", "-25"), FLANNEL)
        await trio.sleep(5)
        for node, other in (nodes, nodes[::-1]):
            assert routes(node) == {subnet_of(other)}
            assert codes(node) == {
                "key-unknown",
                "lease-malformed",
                "lease-oversized",
                "lease-outside",
                "lease-overlap",
            }
        late = SimulatedNode(3, store, tmp_path)
        nursery.start_soon(late.run)
        await trio.sleep(5)
        assert routes(late) == set(map(subnet_of, nodes))


async def test_peers_that_cannot_be_served_are_named(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with cluster(tmp_path, 1) as (store, [node], _):
        good = FLANNEL
        await put(store, "subnets/10.244.1.0-24", good)
        await put(store, "subnets/10.244.2.0-24", good.replace(b"10.99.0.77", b"10.99.0.78"))
        await put(
            store, "subnets/10.244.3.0-24", b'{"PublicIP":"10.99.0.79","PublicIPv6":null,"BackendType":"host-gw"}'
        )
        await put(store, "subnets/10.244.4.0-24", b'{"PublicIP":"10.99.0.80","PublicIPv6":null}')
        await put(
            store,
            "subnets/10.244.5.0-24",
            good.replace(b"10.99.0.77", b"10.99.0.81").replace(b'"VNI":1', b'"VNI":5').replace(b"5c", b"5d"),
        )
        await put(store, "subnets/10.244.6.0-24", good.replace(b"10.99.0.77", b"10.99.0.1").replace(b"5c", b"5e"))
        old = b'{"PublicIP":"10.99.0.82","BackendType":"vxlan","BackendData":{"VtepMAC":"7a:eb:33:ad:22:5f"}}'
        await put(store, "subnets/10.244.7.0-24", old)
        await trio.sleep(5)
        status = node.daemon.answer().status
        reasons = {peer.subnet.split(".")[2]: peer.reason for peer in status.peers}
        states = {peer.subnet.split(".")[2]: peer.state for peer in status.peers}
        assert {third for third, state in states.items() if state is PeerState.IN_SYNC} == {"1", "7"}
        assert "which is that of 10.244.1.0/24" in reasons["2"]
        assert "'host-gw'" in reasons["3"]
        assert "names no backend" in reasons["4"]
        assert "VNI 5" in reasons["5"]
        assert "this node's own" in reasons["6"]
        assert node.daemon.answer().verdict is Verdict.DEGRADED


async def test_an_unfit_host_claims_nothing_until_it_is_mended(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    store = MemoryStore()
    await write_config(store, CONFIG)
    node = SimulatedNode(1, store, tmp_path)
    node.preflight = (Problem("port-taken", "UDP port 8472 is taken", "Stop it"),)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.run)
        await trio.sleep(100)
        assert codes(node) == {"port-taken"}
        assert not (await store.snapshot()).subnets
        assert not routes(node)
        assert "ovl.1" not in node.kernel.links
        node.preflight = ()
        await trio.sleep(60)
        assert node.daemon.answer().verdict is Verdict.HEALTHY
        nursery.cancel_scope.cancel()


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


async def test_a_flannel_record_of_this_node_is_taken_over(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    store = MemoryStore()
    await write_config(store, CONFIG)
    await put(store, "subnets/10.244.33.0-24", FLANNEL.replace(b"10.99.0.77", b"10.99.0.1"))
    node = SimulatedNode(1, store, tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.run)
        await trio.sleep(5)
        assert subnet_of(node) == "10.244.33.0/24"
        [record] = (await store.snapshot()).subnets
        assert b'"NodeID":"id1"' in record.value
        assert record.lease_id == 0, "it was a reservation, and stays one"
        assert node.daemon.answer().verdict is Verdict.HEALTHY
        nursery.cancel_scope.cancel()


async def test_out_of_subnets_is_a_clear_state_and_ends_when_one_comes_free(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    tiny = b'{"Network":"10.244.0.0/22","SubnetLen":24,"SubnetMin":"10.244.1.0","SubnetMax":"10.244.2.0"}'
    async with cluster(tmp_path, 3, config=tiny) as (store, nodes, _):
        waiting = next(node for node in nodes if node.keeper.served is None)
        answer = waiting.daemon.answer()
        assert answer.verdict is Verdict.DEGRADED
        assert "out-of-subnets" in codes(waiting)
        assert len(routes(waiting)) == 2, "it still reaches the others"
        leaver = next(node for node in nodes if node is not waiting)
        freed = subnet_of(leaver)
        leaver.line.cut = True
        await store.revoke(leaver.keeper.lease_id)
        await trio.sleep(5)
        assert subnet_of(waiting) == freed
        assert waiting.daemon.answer().verdict is Verdict.HEALTHY


async def test_an_outage_of_the_store_cuts_off_nobody_and_is_never_called_healthy(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with cluster(tmp_path, 2) as (_, nodes, _nursery):
        before = [routes(node) for node in nodes]
        for node in nodes:
            node.line.cut = True
        await trio.sleep(30)
        assert nodes[0].daemon.answer().verdict is Verdict.DEGRADED
        await trio.sleep(600)
        assert nodes[0].belief is Belief.FENCED
        answer = nodes[0].daemon.answer()
        assert answer.verdict is Verdict.UNKNOWN
        assert "could not be renewed" in answer.reason
        assert [routes(node) for node in nodes] == before
        assert nodes[0].subnet_file.exists()
        for node in nodes:
            node.line.cut = False
        await trio.sleep(60)
        assert [node.daemon.answer().verdict for node in nodes] == [Verdict.HEALTHY] * 2
        assert [routes(node) for node in nodes] == before


async def test_the_subnet_file_comes_back_and_an_unwritable_one_is_named(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with cluster(tmp_path, 1) as (_, [node], _nursery):
        text = node.subnet_file.read_text()
        node.subnet_file.unlink()
        await trio.sleep(60)
        assert node.subnet_file.read_text() == text
        node.subnet_file.unlink()
        node.subnet_file.mkdir()
        await trio.sleep(60)
        assert codes(node) == {"subnet-file-unwritable"}
        node.subnet_file.rmdir()
        await trio.sleep(60)
        assert node.daemon.answer().verdict is Verdict.HEALTHY


async def test_the_log_says_each_change_once(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "overlayd")
    async with cluster(tmp_path, 1) as (store, [node], _):
        await put(store, "subnets/10.244.7.0-24", FLANNEL)
        await trio.sleep(300)
        await put(store, "subnets/junk", b"")
        await trio.sleep(300)
        await delete(store, "subnets/junk")
        await delete(store, "subnets/10.244.7.0-24")
        await trio.sleep(300)
        said = [record.getMessage() for record in caplog.records]
        for once in ("subnet leased", "peer joined", "peer left", "network config read", "problem is gone"):
            assert said.count(once) == 1, said
        assert [str(vars(r)["subnet"]) for r in caplog.records if "peer" in r.getMessage()] == [
            "10.244.7.0/24"
        ] * 2
        assert Subnet.parse(subnet_of(node)) in {vars(r).get("subnet") for r in caplog.records}


async def test_a_reservation_is_held_by_a_key_on_the_nodes_grant(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    store = MemoryStore()
    await write_config(store, CONFIG)
    mine = FLANNEL[:-1] + b',"Overlayd":{"NodeID":"id1","NodeName":"node1"}}'
    await put(store, "subnets/10.244.50.0-24", mine)
    node = SimulatedNode(1, store, tmp_path)
    async with trio.open_nursery() as nursery:
        life = await nursery.start(node.run)
        await trio.sleep(5)
        assert (subnet_of(node), node.belief) == ("10.244.50.0/24", Belief.HELD)
        snapshot = await store.snapshot()
        assert [record.lease_id for record in snapshot.subnets] == [0], "it stays a reservation"
        [hold] = snapshot.own
        assert (hold.name, hold.lease_id) == ("overlayd/held/10.244.50.0-24", node.keeper.lease_id)
        life.cancel()
        await nursery.start(node.run)
        await trio.sleep(5)
        assert (subnet_of(node), node.belief) == ("10.244.50.0/24", Belief.HELD)
        [hold] = (await store.snapshot()).own
        assert hold.lease_id == node.keeper.lease_id, "the next life took the hold over"
        node.line.cut = True
        await trio.sleep(300)
        assert node.belief is Belief.FENCED
        assert not (await store.snapshot()).own
        node.line.cut = False
        await trio.sleep(60)
        assert (subnet_of(node), node.belief) == ("10.244.50.0/24", Belief.HELD)
        await delete(store, "subnets/10.244.50.0-24")
        await trio.sleep(5)
        snapshot = await store.snapshot()
        assert (subnet_of(node), node.belief) == ("10.244.50.0/24", Belief.HELD)
        assert [record.lease_id for record in snapshot.subnets] == [node.keeper.lease_id], "an ordinary lease now"
        assert not snapshot.own
        nursery.cancel_scope.cancel()


async def test_nothing_is_claimed_while_claims_are_frozen(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with cluster(tmp_path, 1) as (store, [node], nursery):
        await put(store, "overlayd/frozen", b"")
        late = SimulatedNode(2, store, tmp_path)
        nursery.start_soon(late.run)
        await trio.sleep(100)
        assert codes(late) == {"claims-frozen"}
        assert node.belief is Belief.HELD, "who has one keeps it"
        await delete(store, "overlayd/frozen")
        await trio.sleep(5)
        assert late.daemon.answer().verdict is Verdict.HEALTHY


async def test_another_life_under_the_same_identity_is_named_and_not_fought(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with cluster(tmp_path, 1) as (store, [node], nursery):
        subnet = subnet_of(node)
        clone = SimulatedNode(1, store, tmp_path, seed=1)
        nursery.start_soon(clone.run)
        await trio.sleep(10)
        assert (subnet_of(clone), clone.belief) == (subnet, Belief.HELD)
        assert codes(node) == {"lease-lost", "other-self"}
        revision = (await store.snapshot()).revision
        await trio.sleep(300)
        assert (await store.snapshot()).revision == revision, "neither fights"
        await delete(store, key_of(clone))
        clone.line.cut = True
        await trio.sleep(5)
        assert node.belief is Belief.HELD


async def test_a_strict_fence_stops_forwarding_at_the_deadline_and_opens_again(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with cluster(tmp_path, 2) as (store, nodes, nursery):
        strict = SimulatedNode(3, store, tmp_path, strict_fence=True)
        nursery.start_soon(strict.run)
        await trio.sleep(5)
        subnet = subnet_of(strict)
        strict.line.cut = nodes[0].line.cut = True
        await trio.sleep(52)
        assert (strict.belief, nodes[0].belief) == (Belief.FENCED, Belief.FENCED)
        assert (len(routes(strict)), len(routes(nodes[0]))) == (0, 2)
        assert not strict.subnet_file.exists()
        strict.line.cut = nodes[0].line.cut = False
        await trio.sleep(30)
        assert (subnet_of(strict), strict.belief) == (subnet, Belief.HELD)
        assert len(routes(strict)) == 2
        assert strict.subnet_file.exists()


async def test_pods_at_old_addresses_are_named_with_who_owns_these_now(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with cluster(tmp_path, 2) as (_, nodes, _nursery):
        node, other = nodes
        theirs = IPv4Network(subnet_of(other))
        node.inhabitants = (
            Inhabitant("cni0", IPv4Network(subnet_of(node))[1]),
            Inhabitant("cni0", theirs[1]),
            Inhabitant("cni0", theirs[7]),
            Inhabitant("eth0", node.address),
        )
        await trio.sleep(60)
        [problem] = node.daemon.answer().status.problems
        assert problem.code == "old-addresses"
        assert f"behind cni0 there are still {theirs[1]}, {theirs[7]}, which belong to node2 now" in problem.text


async def test_a_new_subnet_ends_the_daemon_if_it_was_told_so(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    store = MemoryStore()
    await write_config(store, CONFIG)
    node = SimulatedNode(1, store, tmp_path, exit_on_new_subnet=True)
    with pytest.RaisesGroup(SubnetChanged, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.run)
            await trio.sleep(5)
            await delete(store, key_of(node))
            await trio.sleep(5)
            assert node.belief is Belief.HELD, "the same subnet again is no change"
            await put(store, key_of(node), FLANNEL)
            await trio.sleep(60)
            nursery.cancel_scope.cancel()


async def test_a_store_that_went_back_is_named_and_everyone_has_a_subnet_again(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with cluster(tmp_path, 1) as (store, [first], nursery):
        backup = {name: copy.deepcopy(vars(store)[name]) for name in ("_revision", "_records", "_leases")}
        late = [SimulatedNode(number, store, tmp_path) for number in (2, 3)]
        for node in late:
            nursery.start_soon(node.run)
        await trio.sleep(100)
        nodes = [first, *late]
        before = [subnet_of(node) for node in nodes]
        for node in nodes:
            node.line.cut = True
        await trio.sleep(1)
        vars(store).update(backup)
        for node in nodes:
            node.line.cut = False
        await trio.sleep(400)
        assert [subnet_of(node) for node in nodes] == before
        assert {node.belief for node in nodes} == {Belief.HELD}
        assert "store-went-back" in {vars(record).get("code") for record in caplog.records}


async def test_a_damaged_own_record_is_written_anew_and_the_subnet_kept(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with cluster(tmp_path, 2) as (store, [node, other], _):
        subnet, key, grant = subnet_of(node), key_of(node), node.keeper.lease_id
        await put(store, key, b"\xff", grant)
        await trio.sleep(5)
        assert (subnet_of(node), node.belief) == (subnet, Belief.HELD)
        assert len((await store.snapshot()).subnets) == 2
        assert other.daemon.answer().verdict is Verdict.HEALTHY


async def test_writes_that_cannot_succeed_are_not_hurried(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """With a bad config in the store no claim can be right: none is tried, and the store is left in peace."""
    async with cluster(tmp_path, 1) as (store, [node], _):
        await write_config(store, b"{")
        await delete(store, key_of(node))
        before = node.line.calls
        await trio.sleep(60)
        assert node.line.calls - before < 40
        assert {"config-invalid", "lease-unclaimed"} <= codes(node)
        await write_config(store, CONFIG)
        await trio.sleep(5)
        assert node.belief is Belief.HELD


async def test_a_restart_takes_nothing_away(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    store = MemoryStore()
    await write_config(store, CONFIG)
    await put(store, "subnets/10.244.7.0-24", FLANNEL)
    node = SimulatedNode(1, store, tmp_path)
    async with trio.open_nursery() as nursery:
        life = await nursery.start(node.run)
        await trio.sleep(5)
        life.cancel()
        node.kernel.applied.clear()
        node.line.delay = 3.0
        await nursery.start(node.run)
        await trio.sleep(60)
        assert node.belief is Belief.HELD
        assert [str(operation) for operation, _ in node.kernel.applied] == []
        nursery.cancel_scope.cancel()


async def test_a_config_that_this_host_is_not_fit_for_leaves_the_one_before_it_in_force(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with cluster(tmp_path, 2) as (store, nodes, _):
        node, other = nodes
        before = (subnet_of(node), routes(node), node.subnet_file.read_text())
        node.preflight = (Problem("network-overlap", "it overlaps", "Choose another"),)
        await write_config(store, b'{"Network":"10.245.0.0/16"}')
        await trio.sleep(100)
        assert subnet_of(other).startswith("10.245.")
        assert (subnet_of(node), node.subnet_file.read_text()) == (before[0], before[2])
        assert "network-overlap" in codes(node)
        node.kernel.delete_link("ovl.1")
        await trio.sleep(5)
        assert "ovl.1" in node.kernel.links, "it still heals"
        node.preflight = ()
        await trio.sleep(60)
        assert subnet_of(node).startswith("10.245.")
        assert node.daemon.answer().verdict is Verdict.HEALTHY


async def test_a_subnet_file_that_names_a_strangers_subnet_is_withdrawn(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    tiny = b'{"Network":"10.244.0.0/22","SubnetLen":24,"SubnetMin":"10.244.1.0","SubnetMax":"10.244.1.0"}'
    async with cluster(tmp_path, 1, config=tiny) as (store, [node], nursery):
        late = SimulatedNode(2, store, tmp_path)
        late.subnet_file.write_text(node.subnet_file.read_text())
        nursery.start_soon(late.run)
        await trio.sleep(60)
        assert late.keeper.served is None
        assert not late.subnet_file.exists()


async def test_what_the_node_itself_lacks_in_the_kernel_is_never_healthy(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with cluster(tmp_path, 1) as (_, [node], _nursery):
        node.kernel.fail_next(lambda operation: isinstance(operation.item, Link), times=1_000)
        node.kernel.delete_link("ovl.1")
        await trio.sleep(60)
        assert node.daemon.answer().verdict is Verdict.DEGRADED
        assert {"kernel-behind", "kernel-refused"} <= codes(node)


def backup_of(store: MemoryStore) -> dict[str, object]:
    return {name: copy.deepcopy(vars(store)[name]) for name in ("_revision", "_records", "_leases")}


async def test_a_subnet_that_an_operator_reserved_for_the_node_meanwhile_is_taken(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with cluster(tmp_path, 1) as (store, [node], _):
        subnet = subnet_of(node)
        node.line.cut = True
        await trio.sleep(100)
        await store.commit(make_reservation(await store.snapshot(), Subnet.parse(subnet), "id1"))
        node.line.cut = False
        await trio.sleep(60)
        assert (subnet_of(node), node.belief) == (subnet, Belief.HELD)
        assert node.keeper.held is not None
        assert node.keeper.held.is_reservation


async def test_a_backup_from_before_a_restart_is_no_other_self(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    store = MemoryStore()
    await write_config(store, CONFIG)
    node = SimulatedNode(1, store, tmp_path)
    async with trio.open_nursery() as nursery:
        life = await nursery.start(node.run)
        await trio.sleep(5)
        subnet, backup = subnet_of(node), backup_of(store)
        life.cancel()
        await nursery.start(node.run)
        await trio.sleep(20)
        vars(store).update(backup)
        await trio.sleep(400)
        assert (subnet_of(node), node.belief) == (subnet, Belief.HELD)
        nursery.cancel_scope.cancel()


async def test_a_belief_that_a_backup_brings_back_waits_for_the_thaw(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """The handbook's procedure, with a node that had lost its subnet to another since the backup was made."""
    single = b'{"Network":"10.244.0.0/22","SubnetLen":24,"SubnetMin":"10.244.1.0","SubnetMax":"10.244.1.0"}'
    async with cluster(tmp_path, 1, config=single) as (store, [first], nursery):
        backup = backup_of(store)
        second = SimulatedNode(2, store, tmp_path)
        nursery.start_soon(second.run)
        first.line.cut = True
        await trio.sleep(80)
        assert (first.belief, second.belief) == (Belief.FENCED, Belief.HELD)
        second.line.cut = True  # it learns of nothing, and believes as long as it may
        vars(store).update(backup)
        for lease in vars(store)["_leases"].values():
            lease.deadline = trio.current_time() + 60  # a restored etcd gives every lease its whole TTL again
        frozen = await store.grant(60)
        await put(store, "overlayd/frozen", b"", frozen.lease_id)
        first.line.cut = False
        both_believe = False
        for _ in range(300):
            both_believe |= first.belief is Belief.HELD and second.belief is Belief.HELD
            await trio.sleep(0.2)
        assert not both_believe
        second.line.cut = False
        await trio.sleep(300)
        assert {first.belief, second.belief} >= {Belief.HELD}
        assert (first.belief, second.belief) != (Belief.HELD, Belief.HELD)
