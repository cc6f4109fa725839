"""Whole daemons with a fake nft: whom they let in, and that nothing cuts their nodes off."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
import trio.testing

from overlayd.core.firewall.nftables import SOURCE_CHECK, Sender
from overlayd.core.firewall.policy import Firewall
from overlayd.core.kernel.driver import Verb
from overlayd.core.status.status import PeerState, Verdict
from overlayd.testing.simulation.host import SimulatedHost
from overlayd.testing.store import SimulatedStore
from overlayd.testing.store_link import Cut
from support.cluster import cluster, delete, key_of

FIREWALL = Firewall(masquerade=True, source_check=True)


@asynccontextmanager
async def guarded(
    home: Path, count: int, **settings: Any
) -> AsyncGenerator[tuple[SimulatedStore, list[SimulatedHost]]]:
    """Make so many nodes that use all of nftables; the test starts the first, the others run."""
    async with cluster(home, 0) as (store, _, nursery):
        nodes = [
            SimulatedHost(n, store, home, nursery, firewall=FIREWALL, **settings) for n in range(1, count + 1)
        ]
        for node in nodes[1:]:
            await nursery.start(node.run)
        yield store, nodes


def let_in(node: SimulatedHost) -> set[str]:
    """The addresses whose packets its rules let in, if there are any rules."""
    return {str(sender.address) for sender in node.kernel.nft.senders}


def is_checked(node: SimulatedHost) -> bool:
    return SOURCE_CHECK in node.kernel.nft.chains


async def test_nodes_let_each_other_in_and_nobody_else(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with guarded(tmp_path, 3) as (_, nodes), trio.open_nursery() as nursery:
        await nursery.start(nodes[0].run)
        await trio.sleep(10)
        addresses = {str(node.address) for node in nodes}
        for node in nodes:
            assert let_in(node) == addresses - {str(node.address)}
            status = node.answer().status
            assert status.firewall is not None
            assert (status.firewall.masquerade, status.firewall.source_check) == (True, True)
            assert "FLANNEL_IPMASQ=true\n" in node.subnet_file.read_text()
        nursery.cancel_scope.cancel()


async def test_a_peer_that_can_not_be_let_in_is_not_in_sync_and_says_why(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with guarded(tmp_path, 2) as (_, [node, peer]), trio.open_nursery() as nursery:
        node.kernel.fail_next(lambda o: isinstance(o.item, Sender), reason="no room", times=20)
        await nursery.start(node.run)
        await trio.sleep(5)
        answer = node.answer()
        assert answer.verdict is Verdict.DEGRADED
        [status] = answer.status.peers
        assert status.state is PeerState.FAILED
        assert "no room" in status.reason
        await trio.sleep(3600)
        assert node.answer().verdict is Verdict.HEALTHY
        assert let_in(node) == {str(peer.address)}
        nursery.cancel_scope.cancel()


async def test_a_daemon_that_starts_while_the_store_is_away_lets_in_whom_it_let_in_before(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with guarded(tmp_path, 2) as (_, [node, peer]), trio.open_nursery() as nursery:
        await nursery.start(node.run)
        await trio.sleep(10)
        node.kill()
        node.store_link.sever(Cut.REFUSED)
        before = set(node.kernel.nft.items)
        await nursery.start(node.run)
        await trio.sleep(600)
        assert set(node.kernel.nft.items) == before
        assert let_in(node) == {str(peer.address)}

        node.kernel.flush_nft()  # and now nobody knows who the peers are: better no check than nobody let in
        await trio.sleep(600)
        assert not is_checked(node)
        node.store_link.mend()
        await trio.sleep(100)
        assert is_checked(node)
        assert let_in(node) == {str(peer.address)}
        nursery.cancel_scope.cancel()


async def test_a_flush_while_the_store_is_away_is_mended_by_the_daemon_that_knows_its_peers(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with guarded(tmp_path, 2) as (_, [node, _peer]), trio.open_nursery() as nursery:
        await nursery.start(node.run)
        await trio.sleep(10)
        before = set(node.kernel.nft.items)
        node.store_link.sever(Cut.REFUSED)
        node.kernel.flush_nft()
        await trio.sleep(1)
        assert set(node.kernel.nft.items) == before
        nursery.cancel_scope.cancel()


async def test_a_restart_takes_nothing_away_on_the_way(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with guarded(tmp_path, 2) as (_, [node, _peer]), trio.open_nursery() as nursery:
        await nursery.start(node.run)
        await trio.sleep(10)
        node.kill()
        before = set(node.kernel.nft.items)
        node.kernel.applied.clear()
        await nursery.start(node.run)
        await trio.sleep(10)
        assert set(node.kernel.nft.items) == before
        removed = {o.item for o, _ in node.kernel.applied if o.verb is Verb.REMOVE}
        assert not removed & before
        nursery.cancel_scope.cancel()


async def test_who_is_fenced_off_lets_nobody_in(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    async with guarded(tmp_path, 2, strict_fence=True) as (_, [node, peer]), trio.open_nursery() as nursery:
        await nursery.start(node.run)
        await trio.sleep(10)
        assert let_in(node) == {str(peer.address)}
        node.store_link.sever(Cut.REFUSED)
        await trio.sleep(100)
        assert is_checked(node)
        assert let_in(node) == set()
        node.store_link.mend()
        await trio.sleep(100)
        assert let_in(node) == {str(peer.address)}
        nursery.cancel_scope.cancel()


async def test_who_leaves_is_let_in_no_more(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    async with guarded(tmp_path, 2) as (store, [node, peer]), trio.open_nursery() as nursery:
        await nursery.start(node.run)
        await trio.sleep(10)
        peer.store_link.sever(Cut.REFUSED)  # or it would claim again
        assert let_in(node) == {str(peer.address)}
        await delete(store, key_of(peer))
        await trio.sleep(1)
        assert let_in(node) == set()
        assert is_checked(node)
        nursery.cancel_scope.cancel()


async def test_a_restarted_daemon_never_takes_its_own_subnet_out_of_the_check(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Not even for the moment in which it has seen the store, and not yet adopted its lease."""
    async with guarded(tmp_path, 2) as (_, [node, _peer]), trio.open_nursery() as nursery:
        await nursery.start(node.run)
        await trio.sleep(10)
        before = node.kernel.nft.chains[SOURCE_CHECK]
        for _ in range(5):
            node.kill()
            await trio.sleep(1)
            node.kernel.applied.clear()
            await nursery.start(node.run)
            await trio.sleep(10)
            assert node.answer().verdict is Verdict.HEALTHY
            touched = [o for o, _ in node.kernel.applied if o.item.key == before.key]
            assert touched == []
        assert node.kernel.nft.chains[SOURCE_CHECK] == before
        nursery.cancel_scope.cancel()
