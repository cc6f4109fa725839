"""Real firewalls of others on a node that real packets cross: what is said to drop them does, and what is said to
open it does.

The packets go from 10.244.1.5, a pod of the node, by `ovl.1` to 10.244.2.5, which answers.  `ovl.1` is a plain
cable here: no filter knows a tunnel from that.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network

import pytest

from overlayd.core.firewall.conflicts import PacketFlow, judge
from overlayd.core.firewall.iptables import Variant
from overlayd.host.firewall_conflicts import open_foreign_firewall_reader
from overlayd.host.netlink.netns import in_netns
from support.iptables import iptables, restore
from support.netns import ip, netns, run
from support.nft import nft, require_nft

NETWORK = IPv4Network("10.244.0.0/16")
HERE, THERE = IPv4Network("10.244.1.0/24"), IPv4Network("10.244.2.0/24")
FLOWS = (
    PacketFlow("what its pods send", HERE, THERE, leaves_by="ovl.1"),
    PacketFlow("what comes", THERE, HERE, comes_by="ovl.1"),
)
PORT = 7000

FIREWALLD = """
table inet firewalld {
  chain filter_FORWARD {
    type filter hook forward priority filter + 10; policy accept;
    ct state { established, related } accept
    ct status dnat accept
    iifname "lo" accept
    ct state invalid drop
    ip6 daddr { ::/96, 2002::/24 } reject with icmpv6 addr-unreachable
    jump filter_FORWARD_ZONES
    reject with icmpx admin-prohibited
  }
  chain filter_FORWARD_ZONES {
    ip saddr 10.244.0.0/16 goto filter_FWD_trusted
    iifname "eth0" goto filter_FWD_public
    goto filter_FWD_public
  }
  chain filter_FWD_trusted { accept; }
  chain filter_FWD_public { jump filter_FWD_public_pre; reject with icmpx admin-prohibited; }
  chain filter_FWD_public_pre { icmp type echo-request accept; }
}
"""
"""As firewalld has it, in short, when its zone `trusted` was given the network."""


@dataclass
class FirewallNode:
    name: str
    pod: str
    peer: str

    async def problems(self) -> list[str]:
        with open_foreign_firewall_reader(self.name) as (_, others):
            return [str(problem) for problem in judge(await others.look(), FLOWS, NETWORK, ours=False)]

    def passes(self) -> bool:
        """Whether a connection comes to be, each way."""
        return self._connects(self.pod, self.peer, "10.244.2.5") and self._connects(
            self.peer, self.pod, "10.244.1.5"
        )

    @staticmethod
    def _connects(source: str, target: str, address: str) -> bool:
        listener = in_netns(target, lambda: socket.create_server((address, PORT)))
        asker = in_netns(source, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        with listener, asker:
            asker.settimeout(0.5)
            return asker.connect_ex((address, PORT)) == 0


@contextmanager
def node() -> Iterator[FirewallNode]:
    with netns() as name, netns("pod") as pod, netns("peer") as peer:
        for other, link, subnet in ((pod, "cni0", HERE), (peer, "ovl.1", THERE)):
            ip(name, f"link add {link} type veth peer name eth0 netns {other}")
            ip(name, f"link set {link} up")
            ip(name, f"address add {subnet[1]}/24 dev {link}")
            ip(other, "link set eth0 up")
            ip(other, f"address add {subnet[5]}/24 dev eth0")
            ip(other, f"route add default via {subnet[1]}")
        run(f"ip netns exec {name} sysctl -qw net.ipv4.ip_forward=1")
        yield FirewallNode(name, pod, peer)


SHUT = {
    "a policy": "table inet fw { chain f { type filter hook forward priority 5; policy drop; }; }",
    "a policy that spares some": """
        table ip filter2 { chain f { type filter hook forward priority 0; policy drop; jump more; }
          chain more { ct state established,related accept; iifname { "eth0", "lo" } accept;
            ip saddr 192.0.2.0/24 accept; }
        }""",
    "a rule": """
        table inet fw {
          chain f { type filter hook forward priority 0; policy accept; meta nfproto ipv4 goto shut; }
          chain shut { oifname vmap { "ovl.1" : drop, "eth0" : accept }; }
        }""",
    "firewalld": FIREWALLD.replace("10.244.0.0/16", "192.0.2.0/24"),
}
OPEN = {
    "firewalld that was told": FIREWALLD,
    "a policy, and a set that lets it pass": """
        table inet fw { set friends { type ipv4_addr; flags interval; elements = { 10.244.0.0/16 }; }
          chain f { type filter hook forward priority 0; policy drop; ip saddr @friends accept; }
        }""",
    "rules about others": """
        table inet fw { chain f { type filter hook forward priority 0; policy accept;
            tcp dport 22 drop; ip saddr 192.0.2.0/24 drop; meta mark 7 drop; limit rate over 9000/second drop; }
        }""",
}


@pytest.mark.parametrize("name", SHUT)
async def test_who_drops_is_named_and_the_command_opens_it(name: str) -> None:
    require_nft()
    with node() as here:
        assert here.passes()
        assert await here.problems() == []
        nft(here.name, "-f", "-", script=SHUT[name])
        assert not here.passes()
        [problem] = await here.problems()
        command = problem.partition("Open it: ")[2]
        if name == "firewalld":
            assert command.startswith("firewall-cmd --permanent --zone=trusted --add-source=10.244.0.0/16")
            return
        nft(here.name, *command.removeprefix("nft ").split())
        assert here.passes()
        assert await here.problems() == []


@pytest.mark.parametrize("name", OPEN)
async def test_nobody_is_named_who_lets_them_pass(name: str) -> None:
    require_nft()
    with node() as here:
        nft(here.name, "-f", "-", script=OPEN[name])
        assert here.passes()
        assert await here.problems() == []


@pytest.mark.parametrize("variant", Variant, ids=str)
async def test_iptables_without_our_rules_is_named_likewise(variant: Variant) -> None:
    require_nft()
    with node() as here:
        restore(here.name, variant, ":FORWARD DROP", "-A FORWARD -i eth9 -j ACCEPT", "-A INPUT -j ACCEPT")
        assert not here.passes()
        [problem] = await here.problems()
        command = problem.partition("Open it: ")[2]
        iptables(here.name, variant, command.removeprefix(f"{variant.command} "))
        assert here.passes()
        assert await here.problems() == []
