"""What overlayd asks of the packet filter: masquerading, and the check that no packet claims to be another's.

**Masquerading.**  What pods send out of the network leaves with the node's address, and so does what comes from
outside for the pods of other nodes, so that the answers find back.  The order is flannel's: packets that
kube-proxy has marked are its own business; those from this node's pods into the network, and those to them, stay
as they are; the rest of what leaves the network, or enters it, is masqueraded.

**Source check.**  A VXLAN packet is what anyone who reaches the UDP port says it is.  Before the kernel takes it
apart, three things are compared with the leases: the outer source must be a peer's; the inner packet must be IPv4
from that peer's subnet, or from the peer's own underlay address, with which a node may answer a pod; the inner
destination must be in our own subnet.  Who forges the outer source of a real peer together with that peer's
inner source passes: only encryption below could tell.

The check is paid for with every packet, so its first rule lets the usual one pass at the price of one lookup in a
hash set, however many peers there are: the inner source is cut to the prefix length that the config gives all
subnets.  This rule accepts and never drops.  The others look into what it did not accept.

Masquerading is desired once this node has a subnet, the check once the peers are known: before that, with no
senders, it would drop everything.  While the node has no subnet the check says nothing of destinations: a daemon
that was restarted knows its peers a moment before it knows its own lease again.  A userspace datapath checks
sources by itself; the check is for the kernel's VXLAN alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from overlayd.core.firewall.iptables import Variant, forward_rules
from overlayd.core.firewall.nftables import (
    BAD_SOURCE,
    MASQUERADE,
    NODES,
    NOT_OURS,
    OTHERS,
    SOURCE_CHECK,
    UNKNOWN_SENDER,
    NftChain,
    NftTable,
    Sender,
    senders,
)
from overlayd.core.kernel.items import Item
from overlayd.core.leases.lease import Lease
from overlayd.core.network.addresses import Family, IPNetwork
from overlayd.core.network.backend import HostRequirements
from overlayd.core.network.view import Leg, NetworkView
from overlayd.core.status.status import FirewallStatus

KUBE_PROXY_MARK = 0x4000
"""The bit that kube-proxy sets on what it will masquerade itself (its option --iptables-masquerade-bit 14)."""

CARRIED = frozenset({Family.IPV4})
"""The families whose rules are written here."""
_MULTICAST = "224.0.0.0/4"
"""RFC 5771."""
_ETHERTYPE_IPV4 = 0x0800
"""RFC 894."""
_NFPROTO_IPV4 = 2
"""linux/netfilter.h.  An IPv6 datagram is never for a VXLAN device of ours, which has an IPv4 address."""

_MASQUERADE_HEAD = "type nat hook postrouting priority 100; policy accept;"
"""NF_IP_PRI_NAT_SRC (linux/netfilter_ipv4.h)."""
_SOURCE_CHECK_HEAD = "type filter hook input priority -200; policy accept;"
"""At this hook fragments are joined, and the packet is still as it came in.  Before the filters of others, which
have priority 0 (NF_IP_PRI_FILTER) as a rule: what is forged is counted here, whatever they make of it."""


class FirewallError(Exception):
    """A request that this host can't satisfy; the text says why."""


@dataclass(frozen=True, slots=True)
class Firewall:
    """The tasks of nft on this node.  `reason` says why sources are not checked, "" where they are."""

    masquerade: bool = False
    source_check: bool = False
    reason: str = "not asked for"


NO_FIREWALL = Firewall()


def decide(masquerade: bool, source_check: bool | None, obstacle: str) -> Firewall:
    """Decide what the node can do of what the operator asked for, where `obstacle` keeps nft from working ("":
    it works).

    `source_check` None stands for "if it can be had".  Raises FirewallError for what was asked for in vain.
    """
    if obstacle and masquerade:
        raise FirewallError(f"--ip-masq needs nft: {obstacle}")
    if obstacle and source_check:
        raise FirewallError(f"--source-check on needs nft: {obstacle}")
    if source_check is False:
        return Firewall(masquerade, False, "switched off by --source-check off")
    return Firewall(masquerade, not obstacle, obstacle)


@dataclass(frozen=True, slots=True)
class PacketFilter:
    """The policy of the packet filters, in the form of a backend's: for the node, and for each peer.

    `decided`: it is known what became of our subnet.  Until then, right after a start, the source check of an
    earlier life stays: one without a subnet would drop what is for our pods.  `variants` of iptables get the
    forward rules.
    """

    firewall: Firewall
    requirements: HostRequirements
    decided: bool = True
    variants: frozenset[Variant] = frozenset()

    def base(self, view: NetworkView) -> Iterator[Item]:
        legs = [leg for leg in view.legs if leg.family in CARRIED]
        for leg in legs:
            chains = list(self._chains(view, leg))
            if chains:
                yield NftTable(leg.subnet_len)
            yield from chains
            yield from (forward_rules(variant, leg.network) for variant in self.variants)

    def _chains(self, view: NetworkView, leg: Leg) -> Iterator[NftChain]:
        if self.firewall.masquerade and leg.own_prefix is not None:
            yield masquerade(leg.network, leg.own_prefix)
        port, vni = self.requirements.port, self.requirements.vni
        if self._checks_sources(view) and port is not None and vni is not None:
            yield source_check(port, vni, leg.subnet_len, leg.own_prefix)

    def peer(self, view: NetworkView, lease: Lease) -> Iterable[Item]:
        return find_senders(lease) if self._checks_sources(view) else ()

    def _checks_sources(self, view: NetworkView) -> bool:
        needed = self.firewall.source_check and self.requirements.vni is not None
        return needed and view.in_sync and (view.lease is not None or self.decided)


def describe(firewall: Firewall, requirements: HostRequirements, drops: Mapping[str, int]) -> FirewallStatus:
    """Return the part of status about it, for a backend with these needs."""
    checked = firewall.source_check and requirements.vni is not None
    reason = firewall.reason if requirements.vni is not None else "only vxlan needs it"
    return FirewallStatus(firewall.masquerade, checked, "" if checked else reason, dict(drops))


def masquerade(network: IPNetwork, own: IPNetwork) -> NftChain:
    """Return the rules for `own`, this node's subnet in `network`."""
    return NftChain(
        MASQUERADE,
        _MASQUERADE_HEAD,
        (
            f"meta mark & {KUBE_PROXY_MARK} == {KUBE_PROXY_MARK} return",
            f"ip saddr {own} ip daddr {network} return",
            f"ip saddr {network} ip daddr {own} return",
            f"ip saddr != {own} ip daddr {own} return",
            f"ip saddr {network} ip daddr != {_MULTICAST} masquerade fully-random",
            f"ip saddr != {network} ip daddr {network} masquerade fully-random",
        ),
    )


def source_check(port: int, vni: int, prefixlen: int, own: IPNetwork | None) -> NftChain:
    """Return the rules for VXLAN packets with this VNI to this UDP port, of a node whose subnet is `own`, if it
    has one. `prefixlen` is that of the table.

    Positions are in bits: from the UDP header the VNI is at 96, the inner EtherType at 224, inner source and
    destination at 336 and 368; from the outer IP header the outer source is at 96.

    A rule does not apply to a packet that ends before what it compares.  So every rule that drops names what is
    ours (`udp dport`, VNI): an early "accept what is not ours" would leave the others those that are too short.
    `th dport` costs one comparison less than `udp dport`, and is enough where nothing is dropped.
    """
    outer, source, destination = "@nh,96,32", "@th,336,32", "@th,368,32"
    mask = int(IPv4Network((0, prefixlen)).netmask)
    usual = f"{outer} . {source} & {mask}"
    ours = f"udp dport {port} @th,96,24 {vni}"
    to_us = to_others = ""
    if own is not None:
        within, first = f"{destination} & {int(own.netmask)}", int(own.network_address)
        to_us, to_others = f" {within} == {first}", f"{within} != {first}"
    rules = [
        f"th dport {port} @th,224,16 {_ETHERTYPE_IPV4}{to_us} {usual} @{senders(prefixlen)} accept",
        f"th dport != {port} accept",
        f"meta nfproto != {_NFPROTO_IPV4} accept",
        f"{ours} {outer} . {outer} != @{NODES} counter name {UNKNOWN_SENDER} drop",
        f"{ours} @th,224,16 != {_ETHERTYPE_IPV4} counter name {BAD_SOURCE} drop",
        f"{ours} {usual} != @{senders(prefixlen)} {outer} . {source} != @{NODES} {outer} . {source} != @{OTHERS} "
        f"counter name {BAD_SOURCE} drop",
    ]
    if to_others:
        rules.append(f"{ours} {to_others} counter name {NOT_OURS} drop")
    return NftChain(SOURCE_CHECK, _SOURCE_CHECK_HEAD, tuple(rules))


def find_senders(peer: Lease) -> list[Sender]:
    """Return the senders of a peer: its pods, and the node itself.

    By the second one, which every peer has, a peer is told from a stranger.
    """
    public, prefix = peer.attributes.public_ip(Family.IPV4), peer.subnet.of(Family.IPV4)
    if not isinstance(public, IPv4Address) or not isinstance(prefix, IPv4Network):
        return []
    return [Sender(public, prefix), Sender(public, IPv4Network(public))]
