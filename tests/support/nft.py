"""Our table as kernel items for a small overlay, and nft itself, by hand, in a namespace."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

import pytest

from overlayd.core.firewall.nftables import NftTable, Sender
from overlayd.core.firewall.policy import masquerade, source_check
from overlayd.core.kernel.items import Item, KernelState
from overlayd.host.nft.program import find_nft
from support.overlay import subnet

NETWORK = IPv4Network("10.244.0.0/16")
TABLE = NftTable(24)
FOREIGN = """
table inet overlayd2 {
  set senders { type ipv4_addr; elements = { 10.99.0.2 }; }
  chain source_check { type filter hook input priority -200; policy accept; ip saddr @senders counter accept; }
}
table ip overlayd { chain source_check { type filter hook input priority 0; udp dport 8472 accept; }; }
table inet Overlayd { chain ip_masq { type nat hook postrouting priority 100; counter; }; }
table ip nat { chain KUBE-POSTROUTING { meta mark & 0x4000 != 0x4000 return; masquerade; }; }
"""
"""Tables of others, some of them named almost like ours."""


def require_nft() -> str:
    program = find_nft()
    if program is None:
        pytest.skip("needs nft: apt-get install nftables")
    return program


def nft(netns: str, *words: str, script: str | None = None) -> str:
    """What nft prints; it must succeed."""
    command = ["ip", "netns", "exec", netns, require_nft(), *words]
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"nft {' '.join(words)}: {done.stderr.strip()}"
    return done.stdout


def senders(number: int) -> tuple[Sender, Sender]:
    """What may come from the peer at 10.99.0.<number>."""
    address = IPv4Address(f"10.99.0.{number}")
    return Sender(address, subnet(number)), Sender(address, IPv4Network(address))


def firewall(number: int = 1, peers: Iterable[int] = ()) -> KernelState:
    """All that the node at 10.99.0.<number> asks of nft."""
    items: list[Item] = [TABLE, masquerade(NETWORK, subnet(number)), source_check(8472, 1, 24, subnet(number))]
    for peer in peers:
        items += senders(peer)
    return KernelState.of(items)
