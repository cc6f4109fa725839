"""Whole daemons on hosts with other people's firewalls, by a fake kernel: what they do, and what they say."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import trio
import trio.testing

from overlayd.core.firewall.conflicts import ForeignFirewalls
from overlayd.core.firewall.foreign_rules import BaseChain, Ruleset
from overlayd.core.firewall.iptables import ForwardRules, Variant, forward_rules
from overlayd.core.kernel.driver import Verb
from overlayd.core.status.health import why_not_ready
from overlayd.core.status.problem import Problem
from overlayd.core.status.status import Verdict
from overlayd.testing.simulation.host import SimulatedHost
from support.cluster import cluster, codes

NETWORK = IPv4Network("10.244.0.0/16")
NFT, LEGACY = (forward_rules(variant, NETWORK) for variant in Variant)
PLACE = ("inet", "fw", "forward")
STRICT = Ruleset((BaseChain(PLACE, "forward", drops=True),), {PLACE: ()})


@asynccontextmanager
async def beside_others(
    home: Path, others: ForeignFirewalls, **settings: Any
) -> AsyncGenerator[tuple[SimulatedHost, trio.Nursery]]:
    """Make a node with a peer that runs; the test starts the node."""
    async with cluster(home, 0) as (store, _, nursery):
        node, peer = (SimulatedHost(n, store, home, nursery, **settings) for n in (1, 2))
        await nursery.start(peer.run)
        node.probe.firewalls = others
        async with trio.open_nursery() as own:
            yield node, own
            own.cancel_scope.cancel()


def in_place(node: SimulatedHost) -> set[ForwardRules]:
    return set(node.kernel.find(ForwardRules))


async def test_each_variant_that_is_in_use_gets_the_rules_and_loses_them_with_the_use(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with beside_others(tmp_path, ForeignFirewalls(frozenset({Variant.LEGACY}))) as (node, nursery):
        await nursery.start(node.run)
        await trio.sleep(10)
        assert in_place(node) == {LEGACY}
        assert node.answer().verdict is Verdict.HEALTHY
        node.probe.firewalls = ForeignFirewalls(frozenset(Variant))
        node.kernel.hint()
        await trio.sleep(1)
        assert in_place(node) == {NFT, LEGACY}
        node.probe.firewalls = ForeignFirewalls()
        await trio.sleep(31)
        assert in_place(node) == set()


async def test_a_node_whose_rules_are_refused_is_not_ready_and_says_so(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with beside_others(tmp_path, ForeignFirewalls(frozenset({Variant.NFT}))) as (node, nursery):
        node.kernel.fail_next(lambda o: isinstance(o.item, ForwardRules), reason="lock is held", times=6)
        await nursery.start(node.run)
        await trio.sleep(5)
        assert {"kernel-behind", "kernel-refused"} <= codes(node)
        answer = node.answer()
        assert why_not_ready(answer) != ""
        assert not node.subnet_file.exists()
        await trio.sleep(600)
        assert in_place(node) == {NFT}
        assert node.subnet_file.exists()
        assert node.answer().verdict is Verdict.HEALTHY


async def test_switched_off_they_are_swept_and_who_drops_is_named(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    place = ("ip", "filter", "FORWARD")
    docker = Ruleset((BaseChain(place, "forward", drops=True, variant=Variant.NFT),), {place: ()})
    others = ForeignFirewalls(frozenset({Variant.NFT}), (docker,))
    async with beside_others(tmp_path, others, forward_rules=False) as (node, nursery):
        node.kernel.put(NFT)
        await nursery.start(node.run)
        await trio.sleep(10)
        assert in_place(node) == set()
        assert codes(node) == {"firewall-drops"}
    async with beside_others(tmp_path / "on", others) as (node, nursery):
        await nursery.start(node.run)
        await trio.sleep(10)
        assert in_place(node) == {NFT}
        assert codes(node) == set()


async def test_who_drops_is_named_as_long_as_there_is_a_peer_to_reach(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with beside_others(tmp_path, ForeignFirewalls(rulesets=(STRICT,))) as (node, nursery):
        await nursery.start(node.run)
        await trio.sleep(10)
        assert codes(node) == {"firewall-drops"}
        [problem] = node.answer().status.problems
        assert problem.text.startswith("the nftables chain inet fw forward drops what its pods send to 10.244.")
        assert problem.remedy.startswith("Open it: nft insert rule inet fw forward ")
        assert node.answer().verdict is Verdict.DEGRADED
        node.probe.firewalls = ForeignFirewalls()
        await trio.sleep(31)
        assert codes(node) == set()


async def test_chain_that_drops_the_backends_packets_is_named_at_input_and_output(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    shut = [Ruleset((BaseChain(PLACE, hook, drops=True),), {PLACE: ()}) for hook in ("input", "output")]
    async with beside_others(tmp_path, ForeignFirewalls(rulesets=tuple(shut))) as (node, nursery):
        await nursery.start(node.run)
        await trio.sleep(10)
        dropped = "the nftables chain inet fw forward drops the overlay's packets (UDP 8472)"
        inward, outward = sorted(problem.text for problem in node.answer().status.problems)
        assert inward.startswith(f"{dropped} from 10.")
        assert outward.startswith(f"{dropped} to 10.")


async def test_among_the_nodes_own_pods_it_is_looked_at_where_bridges_are_filtered(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with cluster(tmp_path, 0) as (store, _, nursery):
        node = SimulatedHost(1, store, tmp_path, nursery)
        node.probe.firewalls = ForeignFirewalls(rulesets=(STRICT,))
        await nursery.start(node.run)
        await trio.sleep(10)
        assert codes(node) == set(), "it has no peer"
        node.probe.firewalls = replace(node.probe.firewalls, bridged=True)
        await trio.sleep(31)
        assert codes(node) == {"firewall-drops"}
        nursery.cancel_scope.cancel()


async def test_what_could_not_be_looked_at_is_told(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    trouble = Problem(
        "iptables-unreadable", "iptables-legacy is in use, and can't be listed", "Give it CAP_NET_RAW"
    )
    async with beside_others(tmp_path, ForeignFirewalls(problems=(trouble,))) as (node, nursery):
        await nursery.start(node.run)
        await trio.sleep(10)
        assert codes(node) == {"iptables-unreadable"}
        assert in_place(node) == set()


async def test_a_restart_takes_nothing_away_on_the_way(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with beside_others(tmp_path, ForeignFirewalls(frozenset({Variant.NFT}))) as (node, nursery):
        await nursery.start(node.run)
        await trio.sleep(10)
        node.kill()
        node.kernel.applied.clear()
        await nursery.start(node.run)
        await trio.sleep(10)
        assert in_place(node) == {NFT}
        assert not [
            o for o, _ in node.kernel.applied if isinstance(o.item, ForwardRules) and o.verb is Verb.REMOVE
        ]
