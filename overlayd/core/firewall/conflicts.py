"""Whether another program's firewall drops packets of the overlay, and the command that opens it.

A packet passes only if each base chain at its hook lets it, so one chain of another firewall is enough to cut the
pods off, and no table of ours can help.  It can only be named.  Three kinds of packets must pass: those of pods at
the hook `forward`, and the backend's own UDP packets at `input` and `output`.

**A wrong accusation is worse than silence**: it sends an operator to open a firewall that is not at fault.  So a
chain is named only if it drops a packet that may well exist for certain.  Not all is known of that packet, and not
every rule is understood; so a match has three answers, true, false and *cannot tell* (None), a walk through a
chain has all the ends that it may have, and all of them must be a drop.  What this leaves unsaid, probes find.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Literal

from overlayd.core.firewall.foreign_rules import BaseChain, ChainKey, Ruleset, Statement
from overlayd.core.firewall.iptables import Variant
from overlayd.core.kernel.items import Route
from overlayd.core.network.addresses import IPNetwork
from overlayd.core.network.backend import HostRequirements
from overlayd.core.network.desired import DesiredState
from overlayd.core.network.view import NetworkView
from overlayd.core.status.problem import Problem
from overlayd.core.text.table import escape


@dataclass(frozen=True, slots=True)
class PacketFlow:
    """The first packet from somewhere in `source` to somewhere in `destination` at one of nft's hooks.

    A pod's packet is TCP, to a port that is not known, and `network` is the overlay's.  The backend's packet is
    UDP to `port`.  Interfaces are None where they are not known.  `states` are what conntrack may call the packet.
    """

    what: str
    source: IPv4Network
    destination: IPv4Network
    comes_by: str | None = None
    leaves_by: str | None = None
    hook: str = "forward"
    network: IPNetwork | None = None
    port: int | None = None
    states: frozenset[str] = frozenset({"new"})

    @property
    def protocol(self) -> str:
        return "tcp" if self.port is None else "udp"


@dataclass(frozen=True, slots=True)
class ForeignFirewalls:
    """The firewalls of others on this host: variants of iptables that are in use, all rules at the hooks, and
    what could not be looked at.  `bridged`: what passes between two ports of a bridge is filtered, too
    (br_netfilter)."""

    variants: frozenset[Variant] = frozenset()
    rulesets: tuple[Ruleset, ...] = ()
    bridged: bool = False
    problems: tuple[Problem, ...] = ()


def flows(
    view: NetworkView, desired: DesiredState, requirements: HostRequirements, *, bridged: bool
) -> Iterator[PacketFlow]:
    """Give examples of what must pass on this node: to and from one of its peers, and among its own pods."""
    peer = next((peer for peer in view.peers if peer.subnet in desired.peers), None)
    for leg in view.legs:
        if not isinstance(own := leg.own_prefix, IPv4Network):
            continue
        theirs = peer.subnet.of(leg.family) if peer is not None else None
        if peer is not None and isinstance(theirs, IPv4Network):
            routes = (item for item in desired.peers[peer.subnet].items if isinstance(item, Route))
            link = next((route.link for route in routes), leg.device)
            yield PacketFlow(f"what its pods send to {theirs}", own, theirs, leaves_by=link, network=leg.network)
            yield PacketFlow(f"what comes from {theirs}", theirs, own, comes_by=link, network=leg.network)
        if bridged:
            yield PacketFlow("what its pods send each other", own, own, network=leg.network)
    here, port = view.underlay.address, requirements.port
    there = peer.attributes.public_ip(view.underlay.family) if peer is not None else None
    if port is None or not isinstance(here, IPv4Address) or not isinstance(there, IPv4Address):
        return
    # vxlan sends from a port of its own for each flow (RFC 7348, section 5); a backend that sends from the port at
    # which it listens may get in as the answer to what it sent.
    states = frozenset({"new"} if requirements.vni is not None else {"new", "established"})
    ends, link = (IPv4Network(there), IPv4Network(here)), view.underlay.link
    what = f"the overlay's packets (UDP {port})"
    yield PacketFlow(f"{what} from {there}", *ends, comes_by=link, hook="input", port=port, states=states)
    yield PacketFlow(f"{what} to {there}", *ends[::-1], leaves_by=link, hook="output", port=port, states=states)


def judge(others: ForeignFirewalls, examples: Iterable[PacketFlow], ours: bool) -> tuple[Problem, ...]:
    """Name each base chain that drops one of the flows for certain.  `ours`: overlayd keeps rules of its own in
    FORWARD of iptables, so that those chains need no judge."""
    examples = tuple(examples)
    found = []
    for ruleset in others.rulesets:
        for base in ruleset.bases:
            if ours and base.hook == "forward" and base.variant in others.variants:
                continue
            for flow in examples:
                if flow.hook == base.hook and (reason := why_dropped(ruleset, base, flow)) is not None:
                    found.append(_problem(ruleset, base, flow, reason))
                    break
    return tuple(found)


def why_dropped(ruleset: Ruleset, base: BaseChain, flow: PacketFlow) -> str | None:
    """Say what drops the flow, None where nothing does or where that can't be told."""
    ends = _walk(ruleset, base.key, flow, {})
    if "accept" in ends or ("return" in ends and not base.drops):
        return None
    return "by its policy" if "return" in ends else ends["drop"]


Ends = Mapping[str, str]
"""How a walk through a chain may end: accept, drop, return; and for a drop the last rule met that drops."""
_ANY: Ends = {"accept": "", "drop": "", "return": ""}


def _walk(ruleset: Ruleset, chain: ChainKey, flow: PacketFlow, known: dict[ChainKey, Ends]) -> Ends:
    """Walk through a chain, unless its ends are `known` already."""
    if chain in known or chain not in ruleset.chains:
        return known.get(chain, _ANY)
    known[chain] = _ANY  # should it lead back to itself, which the kernel does not allow
    ends: dict[str, str] = {}
    for rule in ruleset.chains[chain]:
        for verdict, target, is_certain in _outcomes(rule.statements, flow):
            below = _walk(ruleset, (*chain[:2], target), flow, known) if verdict in ("jump", "goto") else _ANY
            match verdict:
                case "jump":
                    here, goes_on = {end: why for end, why in below.items() if end != "return"}, "return" in below
                case "goto":
                    here, goes_on = dict(below), False
                case "drop":
                    here, goes_on = {"drop": f"by {rule.name} of chain {chain[2]}"}, False
                case "accept" | "return":
                    here, goes_on = {verdict: ""}, False
                case _:
                    here, goes_on = dict(_ANY), True
            ends |= here
            if is_certain and not goes_on:
                known[chain] = ends
                return ends
    known[chain] = ends | {"return": ""}
    return known[chain]


# One rule and one packet ----------------------------------------------------------------------------------------

_DECIDE_NOTHING = {"counter", "log", "mangle", "set", "map", "notrack", "flow", "continue", "comment", "secmark"}
_TRANSPORTS = {"tcp", "udp", "udplite", "sctp", "dccp", "icmp", "igmp", "esp", "ah", "comp"}


def _outcomes(statements: Iterable[Statement], flow: PacketFlow) -> Iterator[tuple[str, str, bool]]:
    """Give each verdict that a rule may have for the flow: its name, its target, and whether it is certain."""
    is_certain = True
    for statement in statements:
        ((kind, value),) = statement.items()
        match kind, value:
            case "match", {"left": left, "op": operator, "right": right}:
                answer = _holds(left, operator, right, flow)
                if answer is False:
                    return
                is_certain = is_certain and answer is True
            case "xt", {"type": "match", "name": name}:
                is_certain = is_certain and name == "comment"
            case "xt", {"type": "target", "name": "REJECT"}:
                yield "drop", "", is_certain
            case "limit" | "quota" | "ct count", _:
                is_certain = False
            case "vmap", {"key": key, "data": {"set": [*elements]}}:
                for element in elements:
                    match element:
                        case [part, dict(outcome)] if len(outcome) == 1:
                            answer = _holds(key, "==", part, flow)
                        case _:
                            outcome, answer = {"unknown": None}, None
                    for verdict, target, _ in _outcomes((outcome,), flow) if answer is not False else ():
                        yield verdict, target, is_certain and answer is True
            case "accept" | "return" | "drop" | "reject", _:
                yield kind.replace("reject", "drop"), "", is_certain
            case "jump" | "goto", {"target": str(target)}:
                yield kind, target, is_certain
            case _ if kind not in _DECIDE_NOTHING:
                yield "unknown", "", is_certain


Known = tuple[int, int] | frozenset[str]
"""What is known of a packet's field: a span of numbers of which any may be, or words of which any may be."""


def _field(left: Any, flow: PacketFlow) -> Known | Literal[False] | None:
    """Return the known value of the field that a match reads; False where the packet can't have it."""
    match left:
        case {"payload": {"protocol": "ip", "field": "saddr"}}:
            return int(flow.source[0]), int(flow.source[-1])
        case {"payload": {"protocol": "ip", "field": "daddr"}}:
            return int(flow.destination[0]), int(flow.destination[-1])
        case {"payload": {"protocol": "ip", "field": "protocol"}} | {"meta": {"key": "l4proto"}}:
            return frozenset({flow.protocol})
        case {"payload": {"protocol": "ip6" | "icmpv6"}}:
            return False
        case {"payload": {"protocol": str(transport)}} if transport in _TRANSPORTS - {flow.protocol}:
            return False
        case {"payload": {"protocol": "tcp" | "udp" | "th", "field": "dport"}} if flow.port is not None:
            return flow.port, flow.port
        case {"meta": {"key": "iifname" | "iif"}} if flow.comes_by is not None:
            return frozenset({flow.comes_by})
        case {"meta": {"key": "oifname" | "oif"}} if flow.leaves_by is not None:
            return frozenset({flow.leaves_by})
        case {"meta": {"key": "nfproto"}}:
            return frozenset({"ipv4"})
        case {"ct": {"key": "state", **rest}} if not rest:
            return flow.states
        case {"ct": {"key": "status", **rest}} if not rest:
            return frozenset({"none of them"})
    return None


def _holds(left: Any, operator: Any, right: Any, flow: PacketFlow) -> bool | None:
    known = _field(left, flow)
    if known is False or known is None or operator not in ("==", "!=", "in"):
        return False if known is False else None
    match right:
        case {"set": [*parts]} | [*parts]:
            pass
        case part:
            parts = [part]
    answers = [_is_one(known, part) for part in parts]
    if True in answers:
        answer = True
    elif None in answers:
        return None
    else:
        answer = False
    return answer is not (operator == "!=")


def _is_one(known: Known, part: Any) -> bool | None:
    """Tell whether the field is this element; None for one that is not understood, such as the name of a set."""
    match part:
        case {"elem": {"val": inner}}:
            return _is_one(known, inner)
        case str() if isinstance(known, frozenset) and not part.startswith("@"):
            if part == "untracked":  # rules of yet another table say what is not tracked
                return None
            wild = part.endswith("*")
            met = [word for word in known if word == part or (wild and word.startswith(part[:-1]))]
            return bool(met) if len(met) in (0, len(known)) else None
    if isinstance(known, frozenset) or (span := _span(part)) is None:
        return None
    if span[0] <= known[0] and known[1] <= span[1]:
        return True
    return None if span[0] <= known[1] and known[0] <= span[1] else False


def _span(part: Any) -> tuple[int, int] | None:
    try:
        match part:
            case {"prefix": {"addr": address, "len": length}}:
                network = IPv4Network(f"{address}/{length}")
                return int(network[0]), int(network[-1])
            case {"range": [first, last]}:
                return _number(first), _number(last)
            case int() | str():
                return _number(part), _number(part)
    except ValueError:
        pass
    return None


def _number(value: Any) -> int:
    return int(value) if str(value).isdecimal() else int(IPv4Address(value))


# What an operator reads -----------------------------------------------------------------------------------------


def _problem(ruleset: Ruleset, base: BaseChain, flow: PacketFlow, reason: str) -> Problem:
    family, table, chain = (shlex.quote(escape(name)) for name in base.key)
    has_ufw = any(name.startswith("ufw-") for _, _, name in ruleset.chains)
    if base.variant is not None:
        whose = f"{'ufw, ' if has_ufw else ''}the chain {chain} of {base.variant.command}"
        remedy = _ufw(flow) if has_ufw else f"{base.variant.command} -I {chain} {_match(flow)} -j ACCEPT"
    elif table == "firewalld" and flow.hook != "output":
        whose = f"firewalld (chain {chain})"
        source, port = f"--zone=trusted --add-source={flow.network}", f"--add-port={flow.port}/udp"
        remedy = f"firewall-cmd --permanent {source if flow.port is None else port} && firewall-cmd --reload"
    else:
        whose = f"the nftables chain {family} {table} {chain}"
        ports, network = f"udp dport {flow.port}", flow.network
        what = ports if flow.port is not None else f"ip saddr {network} ip daddr {network}"
        remedy = f"nft insert rule {family} {table} {chain} {what} accept"
    return Problem("firewall-drops", f"{whose} drops {flow.what}, {reason}", f"Open it: {remedy}")


def _match(flow: PacketFlow) -> str:
    return f"-p udp --dport {flow.port}" if flow.port is not None else f"-s {flow.network} -d {flow.network}"


def _ufw(flow: PacketFlow) -> str:
    if flow.port is None:
        return f"ufw route allow from {flow.network} to {flow.network}"
    return f"ufw allow {'out ' if flow.hook == 'output' else ''}{flow.port}/udp"
