"""For each check small faults that turn just that check red, and just for one pair.

A check is worth what it can find.  Every fault here is one rule of a packet filter, in a place that no daemon of
the lab looks after, so that nothing heals it while it is wanted.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass

from overlayd.lab.suite.packet_filter import (
    Base,
    Divert,
    Drop,
    Hook,
    Masquerade,
    Match,
    Rule,
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
from overlayd.lab.suite.stage import Endpoint, Pair, Stage, every_pair

_UNREACHABLE, _ECHO_REQUEST, _TIME_EXCEEDED = 3, 8, 11
"""ICMP message types (RFC 792)."""

_FIRST_FRAGMENT = field(Base.NETWORK, 6, b"\x20\x00")
"""More fragments follow, and this one starts at offset 0 (RFC 791): it bears the UDP header."""

_ETCD_PORT = 2379

RuleFor = Callable[[Stage, Pair], Rule]


@dataclass(frozen=True)
class Sabotage:
    """`fault` says in words what is done; `victim` is the pair that must turn red by it, in `check` and in no
    other, and no other pair may."""

    check: str
    fault: str
    victim: Callable[[Stage], Pair]
    rule: RuleFor


def two_nodes(stage: Stage) -> Pair:
    return next(pair for pair in every_pair(stage.pods, stage.pods) if pair.source.node != pair.target.node)


def one_node(stage: Stage) -> Pair:
    return next(pair for pair in every_pair(stage.pods, stage.pods) if pair.source.node == pair.target.node)


def node_and_far_pod(stage: Stage) -> Pair:
    return next(pair for pair in every_pair(stage.nodes, stage.pods) if pair.source.node != pair.target.node)


def pod_and_far_node(stage: Stage) -> Pair:
    return next(pair for pair in every_pair(stage.pods, stage.nodes) if pair.source.node != pair.target.node)


def stays_and_leaves(stage: Stage) -> Pair:
    return Pair(stage.nodes[0], stage.nodes[-1])


def on_the_way(verdict: Verdict, hook: Hook, *conditions: Match) -> RuleFor:
    """On the source's node, to packets from the source to the target."""

    def rule(stage: Stage, pair: Pair) -> Rule:
        ends = (source(pair.source.address), destination(pair.target.address))
        return Rule(pair.source.node.name, hook, (*ends, *conditions), verdict)

    return rule


def dropped(*conditions: Match) -> RuleFor:
    return on_the_way(Drop(), Hook.FORWARD, *conditions)


def dropped_full_size(port: Port) -> RuleFor:
    """Packets of just the overlay's MTU get lost on the way."""

    def rule(stage: Stage, pair: Pair) -> Rule:
        return dropped(longer_than(pair.source.mtu - 1), *to_port(socket.IPPROTO_UDP, port))(stage, pair)

    return rule


def diverted(*conditions: Match) -> RuleFor:
    """A pod of a third node gets what is meant for the target, and answers in its place."""

    def rule(stage: Stage, pair: Pair) -> Rule:
        other = next(pod for pod in stage.pods if pod.node not in (pair.source.node, pair.target.node))
        return on_the_way(Divert(other.address), Hook.PREROUTING, *conditions)(stage, pair)

    return rule


def at_the_source(*conditions: Match) -> RuleFor:
    def rule(stage: Stage, pair: Pair) -> Rule:
        return Rule(pair.source.name, Hook.OUTPUT, (destination(pair.target.address), *conditions), Drop())

    return rule


def silenced(kind: int, side: Callable[[Pair], Endpoint]) -> RuleFor:
    """The node on this side keeps to itself that it did not forward what was meant for the target."""
    # An ICMP error holds 8 bytes of its own, then the IP header of the packet that it is about (RFC 792).
    quoted_destination = 8 + 16

    def rule(stage: Stage, pair: Pair) -> Rule:
        about = field(Base.TRANSPORT, quoted_destination, pair.target.address.packed)
        matches = (destination(pair.source.address), protocol(socket.IPPROTO_ICMP), icmp_type(kind), about)
        return Rule(side(pair).node.name, Hook.OUTPUT, matches, Drop())

    return rule


def deaf_to_the_store(stage: Stage, pair: Pair) -> Rule:
    return Rule(pair.source.name, Hook.INPUT, (protocol(socket.IPPROTO_TCP), source_port(_ETCD_PORT)), Drop())


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
        "the source drops TCP to its neighbour",
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
        "the source's node masquerades all that goes to the target",
        two_nodes,
        on_the_way(Masquerade(), Hook.POSTROUTING),
    ),
    Sabotage(
        "large-tcp",
        "the source's node drops TCP segments of more than 1,000 bytes to the target",
        two_nodes,
        dropped(longer_than(1_000), *to_port(_TCP, Port.LARGE_TCP)),
    ),
    Sabotage(
        "large-udp",
        "the source's node drops the first fragment of datagrams to the target",
        two_nodes,
        dropped(_FIRST_FRAGMENT, *to_port(_UDP, Port.LARGE_UDP)),
    ),
    Sabotage(
        "mtu-exact",
        "the source's node drops packets of just the overlay's MTU",
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
    Sabotage("leave", "a node that stays is cut off from etcd", stays_and_leaves, deaf_to_the_store),
)
