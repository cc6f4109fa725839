"""Pods whose network is made by the real CNI plugins, as the daemon's configuration says."""

from __future__ import annotations

import json
import subprocess
import sys
from ipaddress import IPv4Network

import pytest

from overlayd.lab.cni import find_plugins
from overlayd.lab.control import LabError
from overlayd.lab.launcher import HeldLab
from overlayd.lab.model import LabSpec
from support.lab import OVERLAYD, Labs, run_inside


@pytest.fixture
def lab(labs: Labs) -> HeldLab:
    try:
        find_plugins()
    except LabError as error:
        pytest.skip(f"needs CNI plugins: {error}")
    return labs.get(LabSpec(nodes=2, pods=2, cni=True))


def cni(lab: HeldLab, command: str, pod: str) -> subprocess.CompletedProcess[str]:
    node = f"node{pod[3]}"
    return run_inside(lab, node, sys.executable, "-m", "overlayd.lab.cni", command, pod)


def test_every_check_passes_on_pods_that_the_plugins_made(lab: HeldLab) -> None:
    done = subprocess.run(
        [*OVERLAYD, "lab", "test", "--name", lab.lab.name, "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]


def test_check_finds_what_add_made_and_misses_what_was_taken_away(lab: HeldLab) -> None:
    assert cni(lab, "check", "pod1-1").stderr == ""
    assert cni(lab, "check", "pod2-2").returncode == 0
    assert run_inside(lab, "pod1-1", "ip", "route", "delete", "10.244.0.0/16").returncode == 0
    broken = cni(lab, "check", "pod1-1")
    assert broken.returncode == 1
    assert "bridge check for pod1-1" in broken.stderr
    gateway = str(IPv4Network(subnet_of(lab, "node1"))[1])
    assert run_inside(lab, "pod1-1", "ip", "route", "add", "10.244.0.0/16", "via", gateway).returncode == 0
    assert cni(lab, "check", "pod1-1").returncode == 0


def test_del_gives_the_address_back_and_add_can_be_called_again(lab: HeldLab) -> None:
    assert cni(lab, "del", "pod1-2").returncode == 0
    assert cni(lab, "del", "pod1-2").returncode == 0  # a runtime may repeat it
    assert "eth0" not in run_inside(lab, "pod1-2", "ip", "-brief", "link").stdout
    added = cni(lab, "add", "pod1-2")
    assert added.returncode == 0, added.stderr
    [address] = json.loads(added.stdout)["ips"]
    assert address["address"].split("/")[1] == "24"
    assert (
        run_inside(lab, "pod1-2", "ip", "-brief", "-4", "address", "show", "eth0").stdout.split()[2]
        == address["address"]
    )
    assert cni(lab, "check", "pod1-2").returncode == 0
    reached = run_inside(lab, "pod2-1", "ip", "route", "get", address["address"].split("/")[0])
    assert "via" in reached.stdout


def test_bridge_and_pod_have_the_overlays_mtu_and_hairpin_is_on(lab: HeldLab) -> None:
    for place, device in (("pod2-1", "eth0"), ("node2", "cni0")):
        assert "mtu 1450" in run_inside(lab, place, "ip", "link", "show", device).stdout
    ports = run_inside(lab, "node2", "ip", "-details", "link", "show", "master", "cni0").stdout
    assert ports.count("hairpin on") == 2


def subnet_of(lab: HeldLab, node: str) -> str:
    subnet = lab.lab.snapshot().node(node).subnet
    assert subnet is not None
    return subnet


def test_flannels_plugin_finds_what_it_needs_in_subnet_env(lab: HeldLab) -> None:
    """flannel's plugin reads the file and hands this to `bridge` and `host-local`; here a script does the same."""
    file = run_inside(lab, "node1", "cat", str(lab.snapshot.spec.all_nodes[0].subnet_file)).stdout
    given = dict(line.split("=", 1) for line in file.split())
    delegate = {
        "cniVersion": "0.3.1",
        "name": "cbr0",
        "type": "bridge",
        "bridge": "cni0",
        "isDefaultGateway": True,
        "mtu": int(given["FLANNEL_MTU"]),
        "ipMasq": False,
        "ipam": {
            "type": "host-local",
            "dataDir": "/run/lab/flannel",
            "rangeStart": str(IPv4Network(subnet_of(lab, "node1"))[100]),  # beside the other pods
            "subnet": str(IPv4Network(given["FLANNEL_SUBNET"], strict=False)),
            "routes": [{"dst": given["FLANNEL_NETWORK"]}],
        },
    }
    [peer] = [pod for pod in lab.lab.snapshot().pods if pod.name == "pod2-1"]
    send = f"import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('{peer.address}', 9))"
    plugins = find_plugins()
    script = f"""
        ip netns add flannel && echo '{json.dumps(delegate)}' | CNI_COMMAND=ADD CNI_CONTAINERID=flannel \\
        CNI_NETNS=/run/netns/flannel CNI_IFNAME=eth0 CNI_PATH={plugins} {plugins}/bridge || exit 1
        ip netns exec flannel {sys.executable} -c "{send}" || exit 2
        ip netns delete flannel
    """
    added = run_inside(lab, "node1", "sh", "-c", script)
    assert added.returncode == 0, added.stderr
    [ip] = json.loads(added.stdout)["ips"]
    assert ip["address"].startswith(str(IPv4Network(subnet_of(lab, "node1"))[100]))
