"""The TUN device of the udp backend on the real kernel: made, recognised, told from those that look like it."""

from __future__ import annotations

import errno
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from overlayd.core.kernel.driver import Scope
from overlayd.core.kernel.items import KernelState, Link, TunKind
from overlayd.host import tun as host_tun
from support.netns import ip
from support.overlay import TUN, adding, install, removing, tun, tun_node
from support.worlds import RealDriverWorld, open_real_world


@pytest.fixture
async def world() -> AsyncIterator[RealDriverWorld]:
    async with open_real_world() as real:
        yield real


async def test_the_device_carries_bare_packets_and_stays(world: RealDriverWorld) -> None:
    await install(world.driver, KernelState.of([tun()]))
    (shown,) = json.loads(ip(world.netns, f"-d -j link show {TUN}"))
    assert {"POINTOPOINT", "NOARP", "UP"} <= set(shown["flags"])
    assert shown["mtu"] == 1472
    assert shown["inet6_addr_gen_mode"] == "none"
    data = shown["linkinfo"]["info_data"]
    assert (data["type"], data["persist"], data["multi_queue"]) == ("tun", True, False)
    assert shown["txqlen"] == host_tun.QUEUE


async def test_it_is_the_same_device_for_every_daemon(world: RealDriverWorld) -> None:
    await install(world.driver, tun_node())
    (before,) = json.loads(ip(world.netns, f"-j link show {TUN}"))
    assert await world.driver.apply(adding(tun_node())) == (None,) * len(tun_node())
    (after,) = json.loads(ip(world.netns, f"-j link show {TUN}"))
    assert before["ifindex"] == after["ifindex"]


@pytest.mark.parametrize("options", ["multi_queue", "user 1000", "group 1000"])
async def test_one_made_by_hand_with_other_attributes_is_told(world: RealDriverWorld, options: str) -> None:
    ip(world.netns, f"tuntap add {TUN} mode tun {options}")
    found = (await world.driver.observe(Scope())).by_key["link", TUN]
    assert isinstance(found, Link)
    assert found.kind == TunKind((options,))
    (refused,) = await world.driver.apply(adding([tun()]))
    assert refused is not None
    assert "removed first" in refused.reason
    assert await world.driver.apply([*removing([found]), *adding([tun()])]) == (None, None)
    assert await world.driver.observe(Scope()) == KernelState.of([tun()])


async def test_one_made_by_hand_just_so_is_taken_on(world: RealDriverWorld) -> None:
    ip(world.netns, f"tuntap add {TUN} mode tun")
    await install(world.driver, tun_node())


@pytest.mark.parametrize(("name", "mode"), [(TUN, "tap"), ("ovl.1", "tun"), ("ovl.udp2", "tun")])
async def test_what_only_looks_like_it_is_somebody_elses(world: RealDriverWorld, name: str, mode: str) -> None:
    ip(world.netns, f"tuntap add {name} mode {mode}")
    ip(world.netns, f"link set {name} up")
    ip(world.netns, f"address add 10.244.1.0/32 dev {name}")
    ip(world.netns, f"route add 10.244.0.0/16 dev {name} proto 111")
    before = ip(world.netns, "-d link"), ip(world.netns, "address"), ip(world.netns, "route")
    assert await world.driver.observe(Scope()) == KernelState()
    assert await world.driver.apply(removing([tun()])) == (None,)
    assert (ip(world.netns, "-d link"), ip(world.netns, "address"), ip(world.netns, "route")) == before


async def test_a_tap_device_of_its_name_is_refused(world: RealDriverWorld) -> None:
    ip(world.netns, f"tuntap add {TUN} mode tap")
    (refused,) = await world.driver.apply(adding([tun()]))
    assert refused is not None
    assert refused.errno == errno.EEXIST
    assert "not overlayd's" in refused.reason


async def test_without_the_device_node_the_refusal_says_how_to_get_it(
    world: RealDriverWorld, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(host_tun, "DEVICE", str(tmp_path / "tun"))
    (refused,) = await world.driver.apply(adding([tun()]))
    assert refused is not None
    assert refused.errno == errno.ENOENT
    assert "modprobe tun" in refused.reason
