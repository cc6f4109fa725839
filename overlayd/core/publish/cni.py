"""The CNI configuration list of this node: what a container runtime does for each pod.

Each pod gets a veth pair on a bridge (`bridge`) and an address of the node's subnet (`host-local`), with a route
to the whole network; ports and bandwidth are taken care of where the plugins for it are there.  The format is that
of the CNI specification 1.0.0; the options are those of the plugins in containernetworking-plugins.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from typing import Any

from overlayd.core.network.addresses import Subnet
from overlayd.core.network.config import NetworkConfig
from overlayd.core.status.problem import Problem

FILE_NAME = "10-overlayd.conflist"
"""Runtimes take the first file of the directory by name; 10 is what flannel and others use as well."""
CNI_VERSION = "1.0.0"
BRIDGE = "cni0"
"""The name that flannel's plugin gives it, so that a node that comes from flannel keeps its bridge."""
NEEDED = ("bridge", "host-local")
WELCOME = ("portmap", "bandwidth")
"""Left out where they are missing: pods work without, but for ports of the host and limits of bandwidth."""
PLUGINS = (*NEEDED, *WELCOME)
SUFFIXES = (".conf", ".conflist", ".json")
"""What runtimes read in the directory (libcni, ConfFiles)."""


def format_conflist(config: NetworkConfig, subnet: Subnet, mtu: int, plugins: Collection[str]) -> str:
    """Format the file's text for a node that holds `subnet`; `mtu`, in bytes, is what pods may use, `plugins`
    those that are installed."""
    bridge: dict[str, Any] = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isDefaultGateway": True,
        "forceAddress": True,  # after a change of the subnet the bridge takes the new gateway's address
        "hairpinMode": True,  # a pod reaches itself through a service
        "ipMasq": False,  # it would hide pods from pods on other nodes; --ip-masq knows the difference
        "mtu": mtu,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": str(prefix)}] for prefix in subnet.prefixes],
            # the gateway that the bridge takes in any case: its CHECK misses the route where it is left out
            "routes": [
                {"dst": str(span.network), "gw": str(prefix.network_address + 1)}
                for span, prefix in zip(config.ranges, subnet.prefixes, strict=True)
            ],
        },
    }
    more = {
        "portmap": {"type": "portmap", "capabilities": {"portMappings": True}},
        "bandwidth": {"type": "bandwidth", "capabilities": {"bandwidth": True}},
    }
    chain = [bridge, *(more[name] for name in WELCOME if name in plugins)]
    return json.dumps({"cniVersion": CNI_VERSION, "name": "overlayd", "plugins": chain}, indent=2) + "\n"


def judge_plugins(present: Collection[str], directory: str) -> tuple[Problem, ...]:
    """Name the missing plugins, and the consequences."""
    missing = [name for name in PLUGINS if name not in present]
    if not missing:
        return ()
    without = "pods do without" if set(NEEDED).issubset(present) else "no pod can be given a network"
    return (
        Problem(
            "cni-plugins-missing",
            f"{directory} lacks the CNI {_plugins(missing)}: {without}",
            "Install them (Debian: containernetworking-plugins, in /usr/lib/cni), or name their directory "
            "with --cni-bin-dir",
        ),
    )


def judge_neighbours(directory: str, names: Iterable[str]) -> tuple[Problem, ...]:
    """Tell whether another configuration comes before ours."""
    before = sorted(name for name in names if name.endswith(SUFFIXES) and name < FILE_NAME)
    if not before:
        return ()
    return (
        Problem(
            "cni-shadowed",
            f"{directory}/{before[0]} comes before {FILE_NAME}: runtimes use the first",
            f"Remove it, if pods are meant to be on this overlay: rm {directory}/{before[0]}",
        ),
    )


def _plugins(names: list[str]) -> str:
    return f"plugin {names[0]}" if len(names) == 1 else f"plugins {', '.join(names)}"
