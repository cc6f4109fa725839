"""A whole daemon, on a store in memory and a fake kernel: what it does about config, peers, host and files."""

from __future__ import annotations

import logging
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
import trio
import trio.testing

from overlayd.core.host.preflight import HostFindings
from overlayd.core.host.stale_addresses import UsedAddress
from overlayd.core.kernel.items import Link
from overlayd.core.network.addresses import Subnet
from overlayd.core.status.status import PeerState, Verdict
from overlayd.host.subnet_file import SubnetFile
from overlayd.testing.kernel import ForeignRoute
from overlayd.testing.simulation.host import SimulatedHost
from overlayd.testing.store import SimulatedStore
from support.cluster import (
    FLANNEL,
    VXLAN,
    cluster,
    codes,
    delete,
    key_of,
    put,
    routes,
    subnet_of,
    write_config,
)


async def test_three_nodes_find_each_other(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    async with cluster(tmp_path, 3) as (_, nodes, _nursery):
        subnets = {subnet_of(node) for node in nodes}
        assert len(subnets) == 3
        for node in nodes:
            answer = node.answer()
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


async def test_without_a_config_it_waits_and_says_for_what(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with cluster(tmp_path, 1, config=None) as (store, [node], _):
        await trio.sleep(500)
        answer = node.answer()
        assert answer.verdict is Verdict.DEGRADED
        [problem] = answer.status.problems
        assert problem.code == "no-config"
        assert "/coreos.com/network/config" in problem.text
        assert "overlayd config set" in problem.remedy
        await write_config(store, VXLAN)
        await trio.sleep(5)
        assert node.answer().verdict is Verdict.HEALTHY


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
        [problem] = nodes[0].answer().status.problems
        assert problem.code == "config-invalid"
        assert said in problem.text
        await write_config(store, VXLAN)
        await trio.sleep(5)
        assert nodes[0].answer().verdict is Verdict.HEALTHY


async def test_a_changed_config_is_followed(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    async with cluster(tmp_path, 2) as (store, nodes, _):
        await write_config(store, b'{"Network":"10.245.0.0/16","Backend":{"Type":"vxlan","VNI":7}}')
        await trio.sleep(60)
        for node, other in (nodes, nodes[::-1]):
            assert subnet_of(node).startswith("10.245.")
            assert routes(node) == {subnet_of(other)}
            assert {name for name in node.kernel.links if name.startswith("ovl")} == {"ovl.7"}
            assert node.answer().verdict is Verdict.HEALTHY
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
        late = SimulatedHost(3, store, tmp_path, nursery)
        await nursery.start(late.run)
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
        status = node.answer().status
        reasons = {peer.subnet.split(".")[2]: peer.reason for peer in status.peers}
        states = {peer.subnet.split(".")[2]: peer.state for peer in status.peers}
        assert {third for third, state in states.items() if state is PeerState.IN_SYNC} == {"1", "7"}
        assert "and 10.244.1.0/24 needs fdb" in reasons["2"]
        assert "'host-gw'" in reasons["3"]
        assert "names no backend" in reasons["4"]
        assert "VNI 5" in reasons["5"]
        assert "this node's own" in reasons["6"]
        assert node.answer().verdict is Verdict.DEGRADED


async def test_an_unfit_host_claims_nothing_until_it_is_mended(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with cluster(tmp_path, 0) as (store, _, nursery):
        node = SimulatedHost(1, store, tmp_path, nursery)
        node.probe.findings = HostFindings(port_free=False)
        await nursery.start(node.run)
        await trio.sleep(100)
        assert codes(node) == {"port-taken"}
        assert not (await store.snapshot()).subnets
        assert not routes(node)
        assert "ovl.1" not in node.kernel.links
        node.probe.findings = HostFindings()
        await trio.sleep(60)
        assert node.answer().verdict is Verdict.HEALTHY


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
        assert node.answer().verdict is Verdict.HEALTHY


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


async def test_pods_at_old_addresses_are_named_with_who_owns_these_now(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with cluster(tmp_path, 2) as (_, nodes, _nursery):
        node, other = nodes
        theirs = IPv4Network(subnet_of(other))
        node.probe.used_addresses = (
            UsedAddress("cni0", IPv4Network(subnet_of(node))[1]),
            UsedAddress("cni0", theirs[1]),
            UsedAddress("cni0", theirs[7]),
            UsedAddress("eth0", node.address),
        )
        await trio.sleep(60)
        [problem] = node.answer().status.problems
        assert problem.code == "old-addresses"
        assert f"behind cni0 there are still {theirs[1]}, {theirs[7]}, which belong to n2 now" in problem.text


async def test_a_config_that_this_host_is_not_fit_for_leaves_the_one_before_it_in_force(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with cluster(tmp_path, 2) as (store, nodes, _):
        node, other = nodes
        before = (subnet_of(node), routes(node), node.subnet_file.read_text())
        in_the_way = ForeignRoute(IPv4Network("10.245.0.0/17"), "eth0", IPv4Address("10.99.9.9"))
        node.kernel.add_route(in_the_way)
        await write_config(store, b'{"Network":"10.245.0.0/16"}')
        await trio.sleep(100)
        assert subnet_of(other).startswith("10.245.")
        assert (subnet_of(node), node.subnet_file.read_text()) == (before[0], before[2])
        assert "network-overlap" in codes(node)
        node.kernel.delete_link("ovl.1")
        await trio.sleep(5)
        assert "ovl.1" in node.kernel.links, "it still heals"
        del node.kernel.routes[in_the_way.destination]
        await trio.sleep(60)
        assert subnet_of(node).startswith("10.245.")
        assert node.answer().verdict is Verdict.HEALTHY


async def test_what_the_node_itself_lacks_in_the_kernel_is_never_healthy(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with cluster(tmp_path, 1) as (_, [node], _nursery):
        node.kernel.fail_next(lambda operation: isinstance(operation.item, Link), times=1_000)
        node.kernel.delete_link("ovl.1")
        await trio.sleep(60)
        assert node.answer().verdict is Verdict.DEGRADED
        assert {"kernel-behind", "kernel-refused"} <= codes(node)


@pytest.mark.parametrize("latency", [0.005, 0.02])
async def test_subnet_env_names_no_subnet_whose_address_is_not_in_the_kernel(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, latency: float
) -> None:
    store = SimulatedStore(lambda: None)
    await write_config(store, VXLAN)
    async with trio.open_nursery() as nursery:
        hosts = [SimulatedHost(number, store, tmp_path, nursery) for number in (1, 2, 3)]
        for host in hosts:
            host.kernel_latency = latency
            nursery.start_soon(host.run)
        waiting = set(hosts)
        with trio.fail_after(60):
            while waiting:
                for host in [host for host in waiting if host.subnet_file.exists()]:
                    published = SubnetFile(host.subnet_file).find_subnet()
                    assert published is not None
                    first = published.prefixes[0].network_address
                    assert first in {address.address for address in host.kernel.addresses}
                    waiting.remove(host)
                await trio.sleep(latency / 10)
        nursery.cancel_scope.cancel()


async def test_a_burst_of_joining_peers_costs_few_passes(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with cluster(tmp_path, 1) as (store, [node], _):
        before = node.answer().status.reconciler
        for number in range(50):
            record = FLANNEL.replace(b"10.99.0.77", b"10.99.7.%d" % (number + 1)).replace(b"5c", b"%02x" % number)
            await put(store, f"subnets/10.244.{number + 1}.0-24", record)
            await trio.sleep(0.02)
        await trio.sleep(5)
        after = node.answer().status
        assert len(after.peers) == after.peers_in_sync >= 49
        assert after.reconciler.passes - before.passes <= 14
        assert after.reconciler.reasons["store"] - before.reasons["store"] <= 13
