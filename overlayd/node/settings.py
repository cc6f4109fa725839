"""What a daemon is given at its start: what the operator decided, and the edges to the machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from overlayd.core.decide import NodeSettings
from overlayd.core.firewall.policy import NO_FIREWALL, Firewall
from overlayd.core.host.snapshot import HostProbe
from overlayd.core.host.underlay import InterfaceSelector
from overlayd.core.kernel.datapath import DatapathReport
from overlayd.core.kernel.driver import Driver
from overlayd.core.network.first_config import FirstConfig
from overlayd.host.cleanup_state import CleanupStateFile
from overlayd.host.conflist import ConflistFile
from overlayd.host.identity import Identity


@dataclass(frozen=True, slots=True)
class Settings:
    """The operator's choices for this node; see `overlayd run --help`.  `lease_ttl` in seconds.

    `cni` is where to write the CNI configuration, and where the plugins are.  `exit_on_new_subnet`: end with
    SubnetChanged when the subnet was lost and another one leased.  The rest is explained at NodeSettings.
    """

    node_name: str
    etcd_prefix: str
    subnet_file: Path
    lease_ttl: int
    selector: InterfaceSelector = None
    public_ip: IPv4Address | None = None
    strict_fence: bool = False
    exit_on_new_subnet: bool = False
    firewall: Firewall = NO_FIREWALL
    first_config: FirstConfig | None = None
    cni: ConflistFile | None = None
    forward_rules: bool = True

    def of_node(self, identity: Identity, incarnation: str) -> NodeSettings:
        """State what decisions need of it, for one life of the daemon."""
        return NodeSettings(
            self.node_name,
            identity.node_id,
            incarnation,
            identity.mac,
            f"{self.etcd_prefix}/config",
            self.selector,
            self.public_ip,
            self.strict_fence,
            self.firewall,
            self.forward_rules,
            self.first_config,
        )


@dataclass(frozen=True, slots=True)
class HostEdges:
    """The edges to the machine, which a simulation can replace.

    `clock` tells the seconds of CLOCK_BOOTTIME; `datapath` is what the userspace datapath says of itself, None
    where none is asked for.
    """

    driver: Driver
    probe: HostProbe
    clock: Callable[[], float]
    cleanup_state: CleanupStateFile
    datapath: Callable[[], DatapathReport | None] = lambda: None
