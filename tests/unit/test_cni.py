"""The CNI configuration: what it says, and that it is there just as long as the node can give pods a network."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import trio
import trio.testing

from overlayd.core.network.addresses import Subnet
from overlayd.core.network.config import parse_config
from overlayd.core.publish.cni import FILE_NAME, NEEDED, PLUGINS, format_conflist
from overlayd.host.conflist import ConflistFile
from overlayd.testing.simulation.host import SimulatedHost
from overlayd.testing.store import SimulatedStore
from support.cluster import VXLAN, codes, subnet_of, write_config

CONFIG = parse_config(b'{"Network":"10.244.0.0/16"}')
SUBNET = Subnet.parse("10.244.3.0/24")


class Runtime:
    """The two directories of a container runtime."""

    def __init__(self, home: Path) -> None:
        self.conf_dir, self.bin_dir = home / "net.d", home / "bin"
        self.conf_dir.mkdir()
        self.bin_dir.mkdir()
        for name in PLUGINS:
            self.install(name)
        self.file = ConflistFile(self.conf_dir, self.bin_dir)

    def install(self, name: str) -> None:
        (self.bin_dir / name).write_text("")
        (self.bin_dir / name).chmod(0o755)

    def ensure(self) -> set[str]:
        """What is wrong, by code."""
        made = self.file.ensure(lambda plugins: format_conflist(CONFIG, SUBNET, 1450, plugins))
        return {problem.code for problem in made}


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    return Runtime(tmp_path)


def test_each_pod_gets_an_address_of_the_subnet_and_a_route_to_the_network() -> None:
    conflist = json.loads(format_conflist(CONFIG, SUBNET, 1450, PLUGINS))
    assert (conflist["cniVersion"], conflist["name"]) == ("1.0.0", "overlayd")
    bridge, portmap, bandwidth = conflist["plugins"]
    assert bridge == {
        "type": "bridge",
        "bridge": "cni0",
        "isDefaultGateway": True,
        "forceAddress": True,
        "hairpinMode": True,
        "ipMasq": False,
        "mtu": 1450,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": "10.244.3.0/24"}]],
            "routes": [{"dst": "10.244.0.0/16", "gw": "10.244.3.1"}],
        },
    }
    assert portmap == {"type": "portmap", "capabilities": {"portMappings": True}}
    assert bandwidth == {"type": "bandwidth", "capabilities": {"bandwidth": True}}


def test_plugins_that_pods_can_do_without_are_left_out_and_named(runtime: Runtime) -> None:
    (runtime.bin_dir / "portmap").unlink()
    (runtime.bin_dir / "bandwidth").chmod(0o644)
    assert runtime.ensure() == {"cni-plugins-missing"}
    assert [plugin["type"] for plugin in json.loads(runtime.file.path.read_text())["plugins"]] == ["bridge"]
    runtime.install("portmap")
    runtime.install("bandwidth")
    assert runtime.ensure() == set()
    assert len(json.loads(runtime.file.path.read_text())["plugins"]) == 3


@pytest.mark.parametrize("name", NEEDED)
def test_without_a_plugin_that_every_pod_needs_there_is_no_file(runtime: Runtime, name: str) -> None:
    assert runtime.ensure() == set()
    (runtime.bin_dir / name).unlink()
    assert runtime.ensure() == {"cni-plugins-missing"}
    assert not runtime.file.path.exists()
    runtime.install(name)
    assert runtime.ensure() == set()
    assert runtime.file.path.exists()


def test_a_file_that_was_edited_or_removed_comes_back(runtime: Runtime) -> None:
    runtime.ensure()
    whole = runtime.file.path.read_text()
    runtime.file.path.write_text("{}")
    assert runtime.ensure() == set()
    assert runtime.file.path.read_text() == whole
    runtime.file.path.unlink()
    assert runtime.ensure() == set()
    assert runtime.file.path.read_text() == whole
    assert os.listdir(runtime.conf_dir) == [FILE_NAME]


def test_a_directory_that_is_missing_is_named_and_used_once_it_appears(runtime: Runtime) -> None:
    runtime.conf_dir.rmdir()
    assert runtime.ensure() == {"cni-unwritable"}
    assert not runtime.conf_dir.exists()
    assert runtime.file.withdraw() == ()
    runtime.conf_dir.mkdir()
    assert runtime.ensure() == set()


def test_a_configuration_that_comes_before_ours_is_named(runtime: Runtime) -> None:
    (runtime.conf_dir / "10-aaa.conf").write_text("{}")
    (runtime.conf_dir / "99-later.conflist").write_text("{}")
    (runtime.conf_dir / "00-notes.txt").write_text("")
    [shadow] = runtime.file.ensure(lambda plugins: format_conflist(CONFIG, SUBNET, 1450, plugins))
    assert shadow.code == "cni-shadowed"
    assert "10-aaa.conf comes before" in shadow.text


async def test_it_follows_the_lease(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, runtime: Runtime
) -> None:
    path = runtime.file.path
    store = SimulatedStore(lambda: None)
    async with trio.open_nursery() as nursery:
        node = SimulatedHost(1, store, tmp_path, nursery, cni=runtime.file)
        await nursery.start(node.run)
        await trio.sleep(20)
        assert not path.exists()  # there is no config, so no subnet
        await write_config(store, VXLAN)
        await trio.sleep(20)
        bridge = json.loads(path.read_text())["plugins"][0]
        assert bridge["ipam"]["ranges"] == [[{"subnet": subnet_of(node)}]]
        assert bridge["mtu"] == 1450
        await write_config(store, b'{"Network":"10.245.0.0/16","Backend":{"Type":"vxlan","MTU":1400}}')
        await trio.sleep(60)
        bridge = json.loads(path.read_text())["plugins"][0]
        assert bridge["ipam"]["ranges"] == [[{"subnet": subnet_of(node)}]]
        assert subnet_of(node).startswith("10.245.")
        gateway = subnet_of(node).replace(".0/24", ".1")
        assert bridge["ipam"]["routes"] == [{"dst": "10.245.0.0/16", "gw": gateway}]
        assert bridge["mtu"] == 1350
        runtime.conf_dir.rename(tmp_path / "elsewhere")
        await trio.sleep(60)
        assert codes(node) == {"cni-unwritable"}
        (tmp_path / "elsewhere").rename(runtime.conf_dir)
        await trio.sleep(60)
        assert codes(node) == set()
        nursery.cancel_scope.cancel()
    assert path.exists()  # stopping the daemon leaves everything as it is
