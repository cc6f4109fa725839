"""A whole daemon over the backend udp, on a store in memory and a fake kernel: its peers, and its troubles."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import trio
import trio.testing

from overlayd.core.kernel.datapath import Datapath, Encap
from overlayd.core.status.status import Verdict
from support.cluster import VXLAN, cluster, codes, put, subnet_of, write_config
from support.overlay import TUN

UDP = b'{"Network":"10.244.0.0/16","Backend":{"Type":"udp"}}'
FLANNEL = b'{"PublicIP":"10.99.0.77","PublicIPv6":null}'
"""The record of a node that runs flannel's udp: it names no backend."""


async def test_nodes_find_each_other_and_flannels(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    async with cluster(tmp_path, 3, UDP) as (store, nodes, _nursery):
        await put(store, "subnets/10.244.200.0-24", FLANNEL)
        await trio.sleep(1)
        for node in nodes:
            assert node.answer().verdict is Verdict.HEALTHY
            others = {IPv4Network(subnet_of(other)) for other in nodes if other is not node}
            table = {encap.prefix: encap.destination for encap in node.kernel.find(Encap)}
            assert table.keys() == {*others, IPv4Network("10.244.200.0/24")}
            assert table[IPv4Network("10.244.200.0/24")] == IPv4Address("10.99.0.77")
            [datapath] = node.kernel.find(Datapath)
            assert datapath.own == (IPv4Network(subnet_of(node)),)
            assert "FLANNEL_MTU=1472\n" in node.subnet_file.read_text()


async def test_a_datapath_that_does_not_run_is_named_and_comes_back_whole(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with cluster(tmp_path, 2, UDP) as (_, [node, other], _nursery):
        node.kernel.fail_next(
            lambda operation: isinstance(operation.item, Datapath), reason="it stopped (no) and more", times=2
        )
        [datapath] = node.kernel.find(Datapath)
        node.kernel.delete(datapath)
        await trio.sleep(0.5)
        assert {"datapath-down", "kernel-behind"} <= codes(node)
        [problem] = [p for p in node.answer().status.problems if p.code == "datapath-down"]
        assert problem.text == "the userspace datapath does not run: it stopped (no) and more"
        await trio.sleep(10)
        assert node.answer().verdict is Verdict.HEALTHY
        assert {encap.destination for encap in node.kernel.find(Encap)} == {other.address}


async def test_another_backend_takes_its_place_and_gives_it_back(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with cluster(tmp_path, 2, UDP) as (store, nodes, _nursery):
        for config, device in ((VXLAN, "ovl.1"), (UDP, TUN)):
            await write_config(store, config)
            await trio.sleep(30)
            for node in nodes:
                assert node.answer().verdict is Verdict.HEALTHY
                assert [name for name in node.kernel.links if name.startswith("ovl")] == [device]
                assert bool(node.kernel.find(Datapath)) == bool(node.kernel.find(Encap)) == (device == TUN)
