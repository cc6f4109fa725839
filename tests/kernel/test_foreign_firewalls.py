"""Real firewalls of others on a node that real packets cross: what is said to drop them does, and what is said to
open it does.

TCP goes from 10.244.1.5, a pod of the node, by `ovl.1` to 10.244.2.5 and back.  `ovl.1` is a plain cable here: no
filter knows a tunnel from that.  UDP goes from the node by `eth0` to port 8472 of 192.0.2.2, and back.
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
NODE, FAR = IPv4Network("192.0.2.1"), IPv4Network("192.0.2.2")
TUNNEL = 8472
FLOWS = (
    PacketFlow("what its pods send", HERE, THERE, leaves_by="ovl.1", network=NETWORK),
    PacketFlow("what comes", THERE, HERE, comes_by="ovl.1", network=NETWORK),
    PacketFlow("what peers send", FAR, NODE, comes_by="eth0", hook="input", port=TUNNEL),
    PacketFlow("what peers get", NODE, FAR, leaves_by="eth0", hook="output", port=TUNNEL),
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
FIREWALLD_IN = """
table inet firewalld {
  chain filter_INPUT {
    type filter hook input priority filter + 10; policy accept;
    ct state { established, related } accept
    ct status dnat accept
    iifname "lo" accept
    ct state invalid drop
    jump filter_INPUT_ZONES
    reject with icmpx admin-prohibited
  }
  chain filter_INPUT_ZONES { iifname "eth0" goto filter_IN_public; goto filter_IN_public; }
  chain filter_IN_public {
    jump filter_IN_public_allow
    meta l4proto { icmp, ipv6-icmp } accept
    reject with icmpx admin-prohibited
  }
  chain filter_IN_public_allow {
    tcp dport 22 ct state { new, untracked } accept
    ip6 daddr fe80::/64 udp dport 546 ct state { new, untracked } accept
    ADDED
  }
}
"""
"""As firewalld has it, in short, with its zone `public` on eth0."""
UFW = (
    ":INPUT DROP",
    ":FORWARD DROP",
    *(f":ufw-{name} -" for name in ("before-input", "not-local", "user-input", "after-input", "logging-deny")),
    "-A INPUT -j ufw-before-input",
    "-A INPUT -j ufw-after-input",
    "-A ufw-before-input -i lo -j ACCEPT",
    "-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-A ufw-before-input -m conntrack --ctstate INVALID -j ufw-logging-deny",
    "-A ufw-before-input -m conntrack --ctstate INVALID -j DROP",
    "-A ufw-before-input -p icmp -m icmp --icmp-type 8 -j ACCEPT",
    "-A ufw-before-input -p udp -m udp --sport 67 --dport 68 -j ACCEPT",
    "-A ufw-before-input -j ufw-not-local",
    "-A ufw-before-input -d 224.0.0.251/32 -p udp -m udp --dport 5353 -j ACCEPT",
    "-A ufw-before-input -j ufw-user-input",
    "-A ufw-not-local -m addrtype --dst-type LOCAL -j RETURN",
    "-A ufw-not-local -m addrtype --dst-type MULTICAST -j RETURN",
    "-A ufw-not-local -m limit --limit 3/min --limit-burst 10 -j ufw-logging-deny",
    "-A ufw-not-local -j DROP",
    "-A ufw-user-input -p tcp -m tcp --dport 22 -j ACCEPT",
    "-A ufw-after-input -p udp -m udp --dport 137 -j DROP",
    '-A ufw-logging-deny -m limit --limit 3/min --limit-burst 10 -j LOG --log-prefix "[UFW BLOCK] "',
)
"""As ufw has it, in short, once it was enabled."""
KUBE = (
    ":KUBE-FIREWALL -",
    ":KUBE-FORWARD -",
    "-A INPUT -j KUBE-FIREWALL",
    "-A FORWARD -j KUBE-FORWARD",
    "-A OUTPUT -j KUBE-FIREWALL",
    '-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment "block incoming localnet connections"'
    " -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP",
    "-A KUBE-FIREWALL -m mark --mark 0x8000/0x8000 -j DROP",
    "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP",
    '-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark 0x4000/0x4000 -j ACCEPT',
)
"""As kube-proxy and kubelet have it, in short."""
CALICO = (
    ":cali-INPUT -",
    ":cali-FORWARD -",
    ":cali-from-wl -",
    "-A INPUT -j cali-INPUT",
    "-A FORWARD -j cali-FORWARD",
    "-A cali-INPUT -p udp -m udp --dport 4789 -m addrtype --src-type UNICAST -j ACCEPT",
    "-A cali-INPUT -p udp -m udp --dport 4789 -j DROP",
    "-A cali-INPUT -i cali+ -g cali-from-wl",
    "-A cali-INPUT -m mark --mark 0x10000/0x10000 -j ACCEPT",
    "-A cali-FORWARD -j MARK --set-xmark 0x0/0xe0000",
    "-A cali-FORWARD -i cali+ -j cali-from-wl",
    "-A cali-FORWARD -o cali+ -j cali-from-wl",
    "-A cali-from-wl -j DROP",
)
"""In the manner of Calico: its own tunnel and its own interfaces alone."""


@dataclass
class FirewallNode:
    name: str
    pod: str
    peer: str
    far: str

    async def problems(self) -> list[str]:
        with open_foreign_firewall_reader(self.name) as (_, others):
            return [str(problem) for problem in judge(await others.look(), FLOWS, ours=False)]

    def passes(self) -> bool:
        """Tell whether a connection comes to be, and a datagram arrives, each way."""
        return (
            self._connects(self.pod, self.peer, "10.244.2.5")
            and self._connects(self.peer, self.pod, "10.244.1.5")
            and self._arrives(self.name, self.far, str(FAR[0]))
            and self._arrives(self.far, self.name, str(NODE[0]))
        )

    @staticmethod
    def _arrives(source: str, target: str, address: str) -> bool:
        receiver = in_netns(target, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sender = in_netns(source, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        with receiver, sender:
            receiver.bind((address, TUNNEL))
            receiver.settimeout(0.5)
            try:
                sender.sendto(b"x", (address, TUNNEL))
                return receiver.recv(1) == b"x"
            except (TimeoutError, PermissionError):  # EPERM is how OUTPUT drops
                return False

    @staticmethod
    def _connects(source: str, target: str, address: str) -> bool:
        listener = in_netns(target, lambda: socket.create_server((address, PORT)))
        asker = in_netns(source, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        with listener, asker:
            asker.settimeout(0.5)
            return asker.connect_ex((address, PORT)) == 0


@contextmanager
def node() -> Iterator[FirewallNode]:
    with netns() as name, netns("pod") as pod, netns("peer") as peer, netns("far") as far:
        ip(name, f"link add eth0 type veth peer name eth0 netns {far}")
        for end, address in ((name, NODE[0]), (far, FAR[0])):
            ip(end, "link set eth0 up")
            ip(end, f"address add {address}/24 dev eth0")
        for other, link, subnet in ((pod, "cni0", HERE), (peer, "ovl.1", THERE)):
            ip(name, f"link add {link} type veth peer name eth0 netns {other}")
            ip(name, f"link set {link} up")
            ip(name, f"address add {subnet[1]}/24 dev {link}")
            ip(other, "link set eth0 up")
            ip(other, f"address add {subnet[5]}/24 dev eth0")
            ip(other, f"route add default via {subnet[1]}")
        run(f"ip netns exec {name} sysctl -qw net.ipv4.ip_forward=1")
        yield FirewallNode(name, pod, peer, far)


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
    "firewalld at input": FIREWALLD_IN.replace("ADDED", ""),
    "input": """
        table inet fw { chain i { type filter hook input priority 0; policy drop;
            ct state established,related accept; iif "lo" accept; tcp dport { 22, 443 } accept; }; }""",
    "output": """
        table ip fw { chain o { type filter hook output priority 0; policy accept;
            udp dport 8000-9000 reject; }; }""",
}
OPEN = {
    "firewalld that was told": FIREWALLD,
    "a policy, and a set that lets it pass": """
        table inet fw { set friends { type ipv4_addr; flags interval; elements = { 10.244.0.0/16 }; }
          chain f { type filter hook forward priority 0; policy drop; ip saddr @friends accept; }
        }""",
    "firewalld that was told of the port": FIREWALLD_IN.replace("ADDED", "udp dport 8472 accept"),
    "input with the port in a set": """
        table inet fw { set ports { type inet_service; elements = { 22, 8472 }; }
          chain i { type filter hook input priority 0; policy drop; udp dport @ports accept;
            ct state established,related accept; }
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
        if name.startswith("firewalld"):  # which is not here: what its command does is among those that are open
            assert command.startswith("firewall-cmd --permanent --")
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


SHUT_IPTABLES = {
    "policy": (":FORWARD DROP", "-A FORWARD -i eth9 -j ACCEPT", "-A INPUT -j ACCEPT"),
    "input": (":INPUT DROP", "-A INPUT -i lo -j ACCEPT", "-A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT"),
    "output": ("-A OUTPUT -p udp -m multiport --dports 8472,8285 -j REJECT",),
    "docker": (
        ":FORWARD DROP",
        ":DOCKER-USER -",
        ":DOCKER-ISOLATION-STAGE-1 -",
        "-A FORWARD -j DOCKER-USER",
        "-A FORWARD -j DOCKER-ISOLATION-STAGE-1",
        "-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-A FORWARD -i docker0 ! -o docker0 -j ACCEPT",
        "-A DOCKER-ISOLATION-STAGE-1 -j RETURN",
        "-A DOCKER-USER -j RETURN",
    ),
}


@pytest.mark.parametrize("name", SHUT_IPTABLES)
@pytest.mark.parametrize("variant", Variant, ids=str)
async def test_iptables_without_our_rules_is_named_likewise(variant: Variant, name: str) -> None:
    require_nft()
    with node() as here:
        restore(here.name, variant, *SHUT_IPTABLES[name])
        assert not here.passes()
        [problem] = await here.problems()
        command = problem.partition("Open it: ")[2]
        iptables(here.name, variant, command.removeprefix(f"{variant.command} "))
        assert here.passes()
        assert await here.problems() == []


@pytest.mark.parametrize("variant", Variant, ids=str)
async def test_ufw_is_named_with_its_own_commands_until_it_was_told(variant: Variant) -> None:
    require_nft()
    allow = "-A ufw-user-input -p udp -m udp --dport 8472 -j ACCEPT"  # what its command adds
    with node() as here:
        restore(here.name, variant, *UFW)
        assert not here.passes()
        forward, inward = sorted(await here.problems(), key=lambda text: "INPUT" in text)
        assert forward.endswith("Open it: ufw route allow from 10.244.0.0/16 to 10.244.0.0/16")
        assert inward.endswith("Open it: ufw allow 8472/udp")
        restore(here.name, variant, *UFW, allow, "-A FORWARD -s 10.244.0.0/16 -d 10.244.0.0/16 -j ACCEPT")
        assert here.passes()
        assert await here.problems() == []


@pytest.mark.parametrize("rules", [KUBE, CALICO], ids=["kube-proxy", "calico"])
@pytest.mark.parametrize("variant", Variant, ids=str)
async def test_rules_that_concern_others_accuse_nobody(variant: Variant, rules: tuple[str, ...]) -> None:
    require_nft()
    with node() as here:
        restore(here.name, variant, *rules)
        assert here.passes()
        assert await here.problems() == []
