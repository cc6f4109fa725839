"""The underlay and the preflight, as found on a real host."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from overlayd.core.host.preflight import PreflightRequest, find_obstacles
from overlayd.core.host.snapshot import HostQuestion
from overlayd.core.host.underlay import UnderlayError
from overlayd.core.network.addresses import Family
from overlayd.core.network.backend import HostRequirements
from overlayd.core.network.view import Leg, Underlay
from overlayd.core.status.problem import Problem
from overlayd.host import tun as host_tun
from overlayd.host.netlink.connection import Netlink, open_netlink
from overlayd.host.netlink.driver import VXLAN_DEVICES, open_netlink_driver
from overlayd.host.netlink.dumps import read_host_facts
from overlayd.host.netlink.netns import in_netns
from overlayd.host.preflight import probe
from overlayd.host.underlay import observe_underlay
from support.netns import ip, node
from support.overlay import install
from support.overlay import node as state_of

NETWORK = IPv4Network("10.244.0.0/16")


async def find_host_obstacles(
    netlink: Netlink, network: IPv4Network, underlay: Underlay, needed: HostRequirements
) -> tuple[Problem, ...]:
    facts = await read_host_facts(netlink)
    findings = await probe(netlink, facts, HostQuestion(needed, underlay))
    assert findings is not None
    legs = (Leg(Family.IPV4, network, 24, underlay.address, None, "ovl.1", 1450),)
    request = PreflightRequest(legs, underlay, needed.port, needed.vni, needed.tun)
    return find_obstacles(request, facts, findings)


@dataclass
class HostNode:
    name: str
    netlink: Netlink

    async def problems(
        self, network: IPv4Network = NETWORK, port: int = 8472, vni: int | None = 1, tun: bool = False
    ) -> tuple[Problem, ...]:
        underlay = await observe_underlay(self.netlink, "eth0", None)
        return await find_host_obstacles(self.netlink, network, underlay, HostRequirements(port, vni, tun))

    async def codes(self, network: IPv4Network = NETWORK, port: int = 8472, vni: int | None = 1) -> list[str]:
        return [problem.code for problem in await self.problems(network, port, vni)]


@pytest.fixture
async def host() -> AsyncIterator[HostNode]:
    with node() as name:
        async with open_netlink(name, (VXLAN_DEVICES,)) as netlink:
            yield HostNode(name, netlink)


async def test_the_underlay_is_observed(host: HostNode) -> None:
    ip(host.name, "address add 10.99.0.9/16 dev eth0")
    ip(host.name, "route add default via 10.99.255.254")
    ip(host.name, "route add 10.50.0.0/16 dev eth0")
    found = await observe_underlay(host.netlink, None, IPv4Address("198.51.100.7"))
    assert (found.link, found.address, found.mtu) == ("eth0", IPv4Address("10.99.0.1"), 1500)
    assert found.networks == (IPv4Network("10.50.0.0/16"), IPv4Network("10.99.0.0/16"))
    assert found.public_ip == IPv4Address("198.51.100.7")
    assert await observe_underlay(host.netlink, "10.99.0.9", None) == replace(
        found, address=IPv4Address("10.99.0.9"), public_ip=IPv4Address("10.99.0.9")
    )


async def test_the_underlay_follows_a_default_route_of_several_nexthops(host: HostNode) -> None:
    ip(host.name, "route add default nexthop via 10.99.0.253 dev eth0 nexthop via 10.99.0.254 dev eth0")
    assert (await observe_underlay(host.netlink, None, None)).link == "eth0"


async def test_the_interfaces_that_there_are_are_named(host: HostNode) -> None:
    with pytest.raises(UnderlayError, match=r"'eth7' does not exist; there are .*eth0 \(10\.99\.0\.1/16\)"):
        await observe_underlay(host.netlink, "eth7", None)


async def test_an_ordinary_host_passes_and_nothing_is_left_behind(host: HostNode) -> None:
    before = ip(host.name, "-d link show")
    assert await host.codes() == []
    assert ip(host.name, "-d link show") == before


async def test_a_node_with_its_overlay_and_pods_passes_again(host: HostNode) -> None:
    async with open_netlink_driver(host.name) as driver:
        await install(driver, state_of(1, peers=(2, 3)))
    ip(host.name, "link add cni0 type bridge")
    ip(host.name, "link set cni0 up")
    ip(host.name, "address add 10.244.1.1/24 dev cni0")
    assert await host.codes() == []


async def test_a_network_over_the_underlay_is_refused(host: HostNode) -> None:
    assert await host.codes(IPv4Network("10.99.0.0/16")) == ["network-overlap"]


async def test_a_foreign_route_into_the_network_is_refused(host: HostNode) -> None:
    ip(host.name, "route add 10.244.9.0/24 via 10.99.0.7")
    assert await host.codes() == ["network-overlap"]


async def test_a_flannel_on_this_node_is_named(host: HostNode) -> None:
    ip(host.name, "link add flannel.1 type vxlan id 1 local 10.99.0.1 dev eth0 dstport 8472 nolearning")
    assert await host.codes() == ["vxlan-taken"]
    ip(host.name, "link set flannel.1 up")
    assert await host.codes() == ["vxlan-taken"]
    assert await host.codes(vni=2) == []
    assert await host.codes(port=4789) == []


@contextmanager
def holder(host: HostNode, address: str, port: int) -> Iterator[int]:
    """Another process, this is its number, that has a UDP port on this address."""
    family = "socket.AF_INET6" if ":" in address else "socket.AF_INET"
    script = (
        f"import socket\ns = socket.socket({family}, socket.SOCK_DGRAM)\n"
        f"s.bind(({address!r}, {port})); print('held', flush=True); input()"
    )
    command = ["ip", "netns", "exec", host.name, sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process.pid
        process.communicate("\n")


async def test_a_taken_port_is_found(host: HostNode) -> None:
    with holder(host, "127.0.0.1", 8472):
        assert await host.codes() == ["port-taken"]
        assert await host.codes(port=4789) == []
    assert await host.codes() == []


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
async def test_who_has_a_taken_port_is_named(host: HostNode, address: str) -> None:
    with holder(host, address, 8285) as pid:
        (problem,) = await host.problems(port=8285, vni=None, tun=True)
    command = Path(sys.executable).name[:15]
    assert problem.text == f"UDP port 8285 is taken by {command} (pid {pid})"


async def test_a_port_of_our_own_is_not_in_our_way(host: HostNode) -> None:
    with in_netns(host.name, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as own:
        own.bind(("10.99.0.1", 8285))
        assert await host.problems(port=8285, vni=None, tun=True) == ()


async def test_a_datapath_shares_its_port_with_other_addresses(host: HostNode) -> None:
    with holder(host, "127.0.0.1", 8285):
        assert await host.problems(port=8285, vni=None, tun=True) == ()


async def test_without_the_device_node_a_datapath_is_told_how_to_get_it(
    host: HostNode, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(host_tun, "DEVICE", str(tmp_path / "tun"))
    (problem,) = await host.problems(port=8285, vni=None, tun=True)
    assert problem.code == "tun-missing"
    assert "modprobe tun" in problem.text
    assert await host.problems() == ()


@pytest.mark.parametrize("forwarding", ["0", "1"])
async def test_a_process_without_the_privilege_is_told_what_it_lacks(host: HostNode, forwarding: str) -> None:
    in_netns(host.name, lambda: Path("/proc/sys/net/ipv4/ip_forward").write_text(forwarding))
    read_only = 'mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec "$@"'
    wrapper = ["unshare", "--mount", "sh", "-c", read_only, "sh", "setpriv", "--bounding-set=-net_admin"]
    done = subprocess.run(  # noqa: ASYNC221 - nothing else runs
        [*wrapper, sys.executable, "-c", PREFLIGHT, host.name],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
    )
    expected = ["not-privileged"] + (["forwarding-off"] if forwarding == "0" else [])
    assert done.stdout.split() == expected, done.stderr


PREFLIGHT = """
import sys, trio
from ipaddress import IPv4Network
from overlayd.core.host.preflight import PreflightRequest, find_obstacles
from overlayd.core.host.snapshot import HostQuestion
from overlayd.core.network.addresses import Family
from overlayd.core.network.backend import HostRequirements
from overlayd.core.network.view import Leg
from overlayd.host.netlink.connection import open_netlink
from overlayd.host.netlink.dumps import read_host_facts
from overlayd.host.preflight import probe
from overlayd.host.underlay import observe_underlay

async def main(name):
    async with open_netlink(name) as netlink:
        underlay = await observe_underlay(netlink, "eth0", None)
        facts = await read_host_facts(netlink)
        findings = await probe(netlink, facts, HostQuestion(HostRequirements(8472, 1), underlay))
        legs = (Leg(Family.IPV4, IPv4Network("10.244.0.0/16"), 24, underlay.address, None, "ovl.1", 1450),)
        for problem in find_obstacles(PreflightRequest(legs, underlay, 8472, 1), facts, findings):
            print(problem.code)

trio.run(main, sys.argv[1])
"""
