"""What probes hear of a whole daemon while etcd is away: at its start, and for an hour."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from overlayd.api.pages import respond
from overlayd.core.firewall.nftables import NftChain
from overlayd.core.firewall.policy import Firewall
from overlayd.core.kernel.driver import Operation
from overlayd.core.kernel.items import Link
from overlayd.testing.simulation.host import SimulatedHost
from overlayd.testing.store_link import Cut
from support.cluster import FLANNEL, cluster, put, routes, subnet_of


def probe(node: SimulatedHost, page: str) -> tuple[int, str]:
    found = respond(page, node.answer())
    return found.status, found.body.decode()


def readiness(node: SimulatedHost) -> int:
    return probe(node, "/readyz")[0]


@pytest.mark.parametrize("how", [Cut.REFUSED, Cut.SILENT])
async def test_away_at_the_start(how: Cut, autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    async with cluster(tmp_path, 1) as (store, [other], nursery):
        node = SimulatedHost(2, store, tmp_path, nursery)
        node.store_link.sever(how)
        await nursery.start(node.run)
        for _ in range(60):
            await trio.sleep(60)
            assert probe(node, "/healthz")[0] == 200, "who waits is alive"
            status, text = probe(node, "/readyz")
            assert status == 503
            assert text.startswith("not ready: this node's lease is unclaimed\nstore-unreachable: ")
            assert not node.subnet_file.exists()
        node.store_link.mend()
        await trio.sleep(60)
        assert probe(node, "/readyz") == (200, "ready\n")
        assert routes(node) == {subnet_of(other)}


@pytest.mark.parametrize("how", [Cut.REFUSED, Cut.SILENT])
async def test_away_for_an_hour(how: Cut, autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """With a lease of ten minutes.  The pods keep their network all the time."""
    async with cluster(tmp_path, 2, ttl=600) as (_, [node, other], _nursery):
        kept = (subnet_of(node), node.subnet_file.read_text())
        assert readiness(node) == 200
        node.store_link.sever(how)
        heard = []
        for _ in range(120):
            await trio.sleep(30)
            heard.append(readiness(node))
            assert probe(node, "/healthz")[0] == 200
            assert routes(node) == {subnet_of(other)}
            assert (subnet_of(node), node.subnet_file.read_text()) == kept
        minutes = heard.count(200) / 2
        assert heard == sorted(heard), "ready until the lease may have run out, and not again"
        assert 8 <= minutes < 10, "its margin before the ten minutes are over"
        assert "another node may have been given the subnet" in probe(node, "/readyz")[1]
        assert "\nstore-unreachable: " in probe(node, "/readyz")[1]
        node.store_link.mend()
        await trio.sleep(60)
        assert readiness(node) == 200
        assert subnet_of(node) == kept[0]


async def test_a_restart_while_etcd_is_away_leaves_the_pods_their_network(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with cluster(tmp_path, 1) as (store, [other], nursery):
        node = SimulatedHost(2, store, tmp_path, nursery)
        await nursery.start(node.run)
        await trio.sleep(5)
        kept = (routes(node), node.subnet_file.read_text(), dict(node.kernel.links))
        node.kill()
        node.store_link.sever(Cut.REFUSED)
        await nursery.start(node.run)
        await trio.sleep(3_600)
        assert readiness(node) == 503
        assert (routes(node), node.subnet_file.read_text(), dict(node.kernel.links)) == kept
        assert kept[0] == {subnet_of(other)}
        node.store_link.mend()
        await trio.sleep(60)
        assert readiness(node) == 200


async def test_a_node_without_what_it_needs_in_the_kernel_is_not_ready(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with cluster(tmp_path, 1) as (store, [node], _nursery):
        await put(store, "subnets/10.244.200.0-24", FLANNEL.replace(b"10.99.0.77", b"10.99.0.1"))
        await trio.sleep(60)
        assert probe(node, "/readyz") == (200, "ready\n"), "though that peer is refused"
        node.kernel.fail_next(lambda operation: isinstance(operation.item, Link), times=1_000)
        node.kernel.delete_link("ovl.1")
        await trio.sleep(60)
        status, text = probe(node, "/readyz")
        assert status == 503
        assert text.startswith("not ready: what this node itself needs is not all in the kernel\nkernel-behind: ")


async def test_a_node_without_its_firewall_rules_is_not_ready(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with cluster(tmp_path, 0) as (store, _, nursery):
        rules = Firewall(masquerade=True, source_check=True, reason="")
        node = SimulatedHost(1, store, tmp_path, nursery, firewall=rules)
        refused = True
        node.kernel.fail_next(lambda operation: refused and is_chain(operation), times=1_000)
        await nursery.start(node.run)
        await trio.sleep(60)
        assert probe(node, "/readyz")[0] == 503
        assert "\nkernel-refused: " in probe(node, "/readyz")[1]
        refused = False
        await trio.sleep(120)
        assert readiness(node) == 200
        refused = True
        node.kernel.flush_nft()
        await trio.sleep(5)
        assert readiness(node) == 503
        refused = False
        await trio.sleep(120)
        assert readiness(node) == 200


def is_chain(operation: Operation) -> bool:
    return isinstance(operation.item, NftChain)


async def test_a_kernel_that_never_answers_shows_as_a_daemon_that_is_not_alive(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Though the store goes on failing all the while, which is news each time."""
    async with cluster(tmp_path, 0) as (store, _, nursery):
        node = SimulatedHost(1, store, tmp_path, nursery)
        node.is_kernel_silent = True
        node.store_link.sever(Cut.REFUSED)
        await nursery.start(node.run)
        await trio.sleep(30)
        assert probe(node, "/healthz")[0] == 200
        await trio.sleep(60)
        assert probe(node, "/healthz") == (503, "not alive: the daemon last looked at the kernel 90 s ago\n")
