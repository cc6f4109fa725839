"""For each check small faults that make only that check fail, and only for one pair.

Every fault is one rule of a packet filter, in a table that no daemon of the lab manages: nothing repairs it while
it is needed.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass

from overlayd.lab.suite.ask import fresh_nonce
from overlayd.lab.suite.echo_protocol import EchoRequest
from overlayd.lab.suite.forged_packets import (
    Forge,
    datagram,
    encapsulation,
    from_third_node,
    from_unknown_sender,
    genuine,
    outside_the_subnet,
    position,
)
from overlayd.lab.suite.packet_filter import (
    Divert,
    DropAction,
    FilterBase,
    FilterRule,
    Hook,
    Masquerade,
    Match,
    Rewrite,
    SetSource,
    Verdict,
    destination,
    destination_port,
    field,
    icmp_type,
    longer_than,
    protocol,
    source,
    source_port,
)
from overlayd.lab.suite.ports import Port
from overlayd.lab.suite.topology import ProbeEndpoint, ProbePair, Topology, every_pair

_UNREACHABLE, _ECHO_REQUEST, _TIME_EXCEEDED = 3, 8, 11
"""ICMP message types (RFC 792)."""

_CHECKSUM, _SOURCE, _HEADER = 10, 12, 20
"""Offsets in an IPv4 header (RFC 791): the checksum, and source and destination right behind it; its length."""

_ETCD_PORT = 2379

RuleFor = Callable[[Topology, ProbePair], FilterRule]


@dataclass(frozen=True)
class Sabotage:
    """A fault, described in `fault`.  `victim` is the one pair that must fail by it, in `check` alone."""

    check: str
    fault: str
    victim: Callable[[Topology], ProbePair]
    rule: RuleFor


def two_nodes(topology: Topology) -> ProbePair:
    return next(pair for pair in every_pair(topology.pods, topology.pods) if pair.source.node != pair.target.node)


def one_node(topology: Topology) -> ProbePair:
    return next(pair for pair in every_pair(topology.pods, topology.pods) if pair.source.node == pair.target.node)


def node_and_far_pod(topology: Topology) -> ProbePair:
    return next(pair for pair in every_pair(topology.nodes, topology.pods) if pair.source.node != pair.target.node)


def pod_and_far_node(topology: Topology) -> ProbePair:
    return next(pair for pair in every_pair(topology.pods, topology.nodes) if pair.source.node != pair.target.node)


def pod_and_outside(topology: Topology) -> ProbePair:
    return ProbePair(topology.pods[0], topology.outside(topology.pods[0]))


def pod_and_itself(topology: Topology) -> ProbePair:
    return ProbePair(topology.pods[0], topology.pods[0])


def stays_and_leaves(topology: Topology) -> ProbePair:
    return ProbePair(topology.nodes[0], topology.nodes[-1])


def on_the_path(verdict: Verdict, hook: Hook, *conditions: Match) -> RuleFor:
    """Act on packets from the source to the target, on the source's node."""

    def rule(topology: Topology, pair: ProbePair) -> FilterRule:
        ends = (source(pair.source.address), destination(pair.target.address))
        return FilterRule(pair.source.node.name, hook, (*ends, *conditions), verdict)

    return rule


def dropped(*conditions: Match) -> RuleFor:
    return on_the_path(DropAction(), Hook.FORWARD, *conditions)


def dropped_full_size(port: Port) -> RuleFor:
    """Drop packets of exactly the overlay's MTU on the path."""

    def rule(topology: Topology, pair: ProbePair) -> FilterRule:
        return dropped(longer_than(pair.source.mtu - 1), *to_port(socket.IPPROTO_UDP, port))(topology, pair)

    return rule


def diverted(*conditions: Match) -> RuleFor:
    """Divert packets for the target to a pod of a third node, which answers instead."""

    def rule(topology: Topology, pair: ProbePair) -> FilterRule:
        other = next(pod for pod in topology.pods if pod.node not in (pair.source.node, pair.target.node))
        return on_the_path(Divert(other.address), Hook.PREROUTING, *conditions)(topology, pair)

    return rule


def at_the_source(*conditions: Match) -> RuleFor:
    def rule(topology: Topology, pair: ProbePair) -> FilterRule:
        return FilterRule(
            pair.source.name, Hook.OUTPUT, (destination(pair.target.address), *conditions), DropAction()
        )

    return rule


def silenced(kind: int, side: Callable[[ProbePair], ProbeEndpoint]) -> RuleFor:
    """Drop the ICMP errors of the node on this side about packets for the target."""
    # An ICMP error holds 8 bytes of its own, then the IP header of the packet that it is about (RFC 792).
    quoted_destination = 8 + 16

    def rule(topology: Topology, pair: ProbePair) -> FilterRule:
        about = field(FilterBase.TRANSPORT, quoted_destination, pair.target.address.packed)
        matches = (destination(pair.source.address), protocol(socket.IPPROTO_ICMP), icmp_type(kind), about)
        return FilterRule(side(pair).node.name, Hook.OUTPUT, matches, DropAction())

    return rule


def keeps_its_source(topology: Topology, pair: ProbePair) -> FilterRule:
    return on_the_path(SetSource(pair.source.address), Hook.POSTROUTING)(topology, pair)


def source_of_a_peer(topology: Topology, pair: ProbePair) -> FilterRule:
    """Give packets of an unknown sender a peer's address before the target's node checks them."""
    set_source = Rewrite(FilterBase.NETWORK, _SOURCE, pair.source.node.underlay.packed)
    return FilterRule(
        pair.target.node.name, Hook.PREROUTING, forged(topology, pair, from_unknown_sender), set_source
    )


def made_genuine(forge: Forge) -> RuleFor:
    """Make the forged inner addresses genuine before the target's node checks them."""

    def rule(topology: Topology, pair: ProbePair) -> FilterRule:
        at = position(encapsulation(topology.spec)) + _CHECKSUM
        genuine_header = datagram(*genuine(pair), 0, EchoRequest(fresh_nonce()).encode())[_CHECKSUM:_HEADER]
        matches = forged(topology, pair, forge)
        return FilterRule(
            pair.target.node.name, Hook.PREROUTING, matches, Rewrite(FilterBase.TRANSPORT, at, genuine_header)
        )

    return rule


def forged(topology: Topology, pair: ProbePair, forge: Forge) -> tuple[Match, ...]:
    """Match a pair's forged packets and no others."""
    forgery, needs = forge(topology, pair), encapsulation(topology.spec)
    assert needs.port is not None
    addresses = field(
        FilterBase.TRANSPORT, position(needs) + _SOURCE, forgery.source.packed + forgery.destination.packed
    )
    return source(forgery.outer), protocol(socket.IPPROTO_UDP), destination_port(needs.port), addresses


def cut_off_from_the_store(topology: Topology, pair: ProbePair) -> FilterRule:
    return FilterRule(
        pair.source.name, Hook.INPUT, (protocol(socket.IPPROTO_TCP), source_port(_ETCD_PORT)), DropAction()
    )


def to_port(number: int, port: Port) -> tuple[Match, Match]:
    return protocol(number), destination_port(port)


_TCP, _UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP
_ECHO = (protocol(socket.IPPROTO_ICMP), icmp_type(_ECHO_REQUEST))

SABOTAGES: tuple[Sabotage, ...] = (
    Sabotage(
        "pod-pod-tcp",
        "the source's node drops TCP to the target",
        two_nodes,
        dropped(*to_port(_TCP, Port.POD_POD_TCP)),
    ),
    Sabotage(
        "pod-pod-tcp",
        "the source's node diverts TCP to another pod",
        two_nodes,
        diverted(*to_port(_TCP, Port.POD_POD_TCP)),
    ),
    Sabotage(
        "pod-pod-udp",
        "the source's node drops UDP to the target",
        two_nodes,
        dropped(*to_port(_UDP, Port.POD_POD_UDP)),
    ),
    Sabotage(
        "pod-pod-udp",
        "the source's node diverts UDP to another pod",
        two_nodes,
        diverted(*to_port(_UDP, Port.POD_POD_UDP)),
    ),
    Sabotage("pod-pod-icmp", "the source's node drops echo requests to the target", two_nodes, dropped(*_ECHO)),
    Sabotage(
        "pod-pod-icmp", "the source's node diverts echo requests to another pod", two_nodes, diverted(*_ECHO)
    ),
    Sabotage(
        "same-node",
        "the source drops TCP to the other pod",
        one_node,
        at_the_source(*to_port(_TCP, Port.SAME_NODE)),
    ),
    Sabotage(
        "node-pod",
        "the node drops TCP of its own to the pod",
        node_and_far_pod,
        at_the_source(*to_port(_TCP, Port.NODE_POD)),
    ),
    Sabotage(
        "pod-node",
        "the pod's node drops TCP to the other node",
        pod_and_far_node,
        dropped(*to_port(_TCP, Port.POD_NODE)),
    ),
    Sabotage(
        "no-nat",
        "the source's node masquerades TCP to the target",
        two_nodes,
        on_the_path(Masquerade(), Hook.POSTROUTING, *to_port(_TCP, Port.NO_NAT)),
    ),
    Sabotage(
        "large-tcp",
        "the source's node drops TCP segments of more than 1,000 bytes to the target",
        two_nodes,
        dropped(longer_than(1_000), *to_port(_TCP, Port.LARGE_TCP)),
    ),
    Sabotage(
        "large-udp",
        "the source's node drops UDP packets of more than 1,000 bytes to the target",
        two_nodes,
        dropped(longer_than(1_000), *to_port(_UDP, Port.LARGE_UDP)),
    ),
    Sabotage(
        "mtu-exact",
        "the source's node drops packets of exactly the overlay's MTU",
        two_nodes,
        dropped_full_size(Port.MTU_EXACT),
    ),
    Sabotage(
        "mtu-exact",
        "the source's node does not say that fragmentation is needed",
        two_nodes,
        silenced(_UNREACHABLE, lambda pair: pair.source),
    ),
    Sabotage(
        "ttl",
        "the target's node does not say that time is exceeded",
        two_nodes,
        silenced(_TIME_EXCEEDED, lambda pair: pair.target),
    ),
    Sabotage(
        "masquerade-outside",
        "the pod's node does not masquerade its packets",
        pod_and_outside,
        keeps_its_source,
    ),
    Sabotage(
        "masquerade-outside",
        "the source's node masquerades TCP to the target",
        two_nodes,
        on_the_path(Masquerade(), Hook.POSTROUTING, *to_port(_TCP, Port.MASQUERADE_OUTSIDE)),
    ),
    Sabotage("spoof-outer", "the target's node takes a non-peer for a peer", node_and_far_pod, source_of_a_peer),
    Sabotage(
        "spoof-inner",
        "the target's node takes a false source for a true one",
        node_and_far_pod,
        made_genuine(from_third_node),
    ),
    Sabotage(
        "spoof-subnet",
        "the target's node takes a false destination for a true one",
        node_and_far_pod,
        made_genuine(outside_the_subnet),
    ),
    Sabotage(
        "service",
        "the source's node drops TCP that a service led to the target",
        two_nodes,
        dropped(*to_port(_TCP, Port.SERVICE)),
    ),
    Sabotage(
        "hairpin",
        "the pod's node drops TCP that a service led back to it",
        pod_and_itself,
        dropped(*to_port(_TCP, Port.HAIRPIN)),
    ),
    Sabotage(
        "forward-drop",
        "the source's node drops TCP to the target, whatever FORWARD accepts",
        two_nodes,
        dropped(*to_port(_TCP, Port.FORWARD_DROP)),
    ),
    Sabotage("leave", "a node that stays is cut off from etcd", stays_and_leaves, cut_off_from_the_store),
)
