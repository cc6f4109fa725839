"""Whether a firewall of somebody else's drops what pods send each other, and which of its rules it is.

A packet passes only if each base chain at its hook lets it, so one chain of somebody else's is enough to cut the
pods off, and nothing in a table of ours can help.  All that can be done is to name it, with the command that
opens it.

The judge walks through the chains with a new connection that may well exist.  Not everything about it is known,
and not every condition is understood here; so a condition has three answers, true, false and *cannot tell* (None),
and a walk has all the ends that it may have.  Only where every one of them is a drop something is said: a false
alarm would be worse than silence.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network

from overlayd.core.firewall.iptables import Variant
from overlayd.core.kernel.items import Route
from overlayd.core.network.addresses import IPNetwork
from overlayd.core.network.desired import DesiredState
from overlayd.core.network.view import NetworkView
from overlayd.core.status.problem import Problem


@dataclass(frozen=True, slots=True)
class PacketFlow:
    """The first packet of a TCP connection from somewhere in `source` to somewhere in `destination`.  The
    interfaces that it comes and leaves by are None where their names are not known."""

    what: str
    source: IPv4Network
    destination: IPv4Network
    comes_by: str | None = None
    leaves_by: str | None = None


class Subject(enum.Enum):
    """What a condition is about."""

    SOURCE = enum.auto()
    DESTINATION = enum.auto()
    COMES_BY = enum.auto()
    LEAVES_BY = enum.auto()
    STATE = enum.auto()
    """Of the connection: new, established, …"""
    STATUS = enum.auto()
    """What has become of the connection: dnat, snat, …"""
    FAMILY = enum.auto()
    PROTOCOL = enum.auto()
    """Above IP: tcp, udp, …"""
    UNKNOWN = enum.auto()
    """Something that is not understood here."""


Span = tuple[int, int]
"""The first and the last one of some IPv4 addresses, as numbers."""


@dataclass(frozen=True, slots=True)
class RuleMatch:
    """That the subject is, or with `negated` is not, one of these values: spans for addresses, else words; a name
    of an interface may end with an asterisk.  Without `whole` there are more values, which are not known."""

    subject: Subject
    values: tuple[Span | str, ...] = ()
    negated: bool = False
    whole: bool = True

    def holds(self, flow: PacketFlow) -> bool | None:
        answer = self._is_one(flow)
        if answer is False and not self.whole:
            return None
        return answer if answer is None or not self.negated else not answer

    def _is_one(self, flow: PacketFlow) -> bool | None:
        match self.subject:
            case Subject.SOURCE:
                return _is_within(flow.source, self.values)
            case Subject.DESTINATION:
                return _is_within(flow.destination, self.values)
            case Subject.COMES_BY:
                return _is_named(flow.comes_by, self.values)
            case Subject.LEAVES_BY:
                return _is_named(flow.leaves_by, self.values)
            case Subject.STATE:
                return "new" in self.values
            case Subject.STATUS:
                return False if {"dnat", "snat"}.issuperset(self.values) else None
            case Subject.FAMILY:
                return "ipv4" in self.values
            case Subject.PROTOCOL:
                return "tcp" in self.values
            case Subject.UNKNOWN:
                return None


def _is_within(network: IPv4Network, values: Iterable[Span | str]) -> bool | None:
    low, high = int(network.network_address), int(network.broadcast_address)
    spans = [value for value in values if not isinstance(value, str)]
    if any(first <= low and high <= last for first, last in spans):
        return True
    return None if any(first <= high and low <= last for first, last in spans) else False


def _is_named(name: str | None, values: Iterable[Span | str]) -> bool | None:
    if name is None:
        return None
    return any(
        name.startswith(value[:-1]) if value.endswith("*") else name == value
        for value in values
        if isinstance(value, str)
    )


class ChainVerdict(enum.Enum):
    ACCEPT = "accept"
    DROP = "drop"
    RETURN = "return"
    JUMP = "jump"
    GOTO = "goto"
    NONE = "none"
    """The packet goes on with the next rule."""
    UNKNOWN = "unknown"
    """Not understood here: anything may become of the packet."""


ChainKey = tuple[str, str, str]
"""Family, table, chain."""


@dataclass(frozen=True, slots=True)
class ForeignRule:
    """A rule with one verdict.  `name` tells an operator which one it is."""

    conditions: tuple[RuleMatch, ...]
    verdict: ChainVerdict
    target: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class BaseChain:
    """A chain at the hook `forward`.  `drops`: its policy.  `variant`: of which iptables it is, if of any."""

    chain: ChainKey
    drops: bool
    variant: Variant | None = None


@dataclass(frozen=True, slots=True)
class Ruleset:
    """All that may become of forwarded packets, of one listing."""

    bases: tuple[BaseChain, ...] = ()
    chains: Mapping[ChainKey, tuple[ForeignRule, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ForeignFirewalls:
    """What others have on this host: variants of iptables that are in use, all rules at the hook, and what could
    not be looked at.  `bridged`: what passes between two ports of a bridge is filtered, too (br_netfilter)."""

    variants: frozenset[Variant] = frozenset()
    rulesets: tuple[Ruleset, ...] = ()
    bridged: bool = False
    problems: tuple[Problem, ...] = ()


def flows(view: NetworkView, desired: DesiredState, *, bridged: bool) -> Iterator[PacketFlow]:
    """Give examples of what must pass on this node: to and from one of its peers, and among its own pods."""
    for leg in view.legs:
        if not isinstance(own := leg.own_prefix, IPv4Network):
            continue
        for peer in view.peers:
            theirs, wanted = peer.subnet.of(leg.family), desired.peers.get(peer.subnet)
            if not isinstance(theirs, IPv4Network) or wanted is None:
                continue
            link = next((item.link for item in wanted.items if isinstance(item, Route)), leg.device)
            yield PacketFlow(f"what its pods send to {theirs}", own, theirs, leaves_by=link)
            yield PacketFlow(f"what comes from {theirs}", theirs, own, comes_by=link)
            break
        if bridged:
            yield PacketFlow("what its pods send each other", own, own)


def judge(
    others: ForeignFirewalls, examples: Iterable[PacketFlow], network: IPNetwork, ours: bool
) -> tuple[Problem, ...]:
    """A problem for each base chain that drops one of the flows for certain.  `ours`: overlayd keeps rules of its
    own in iptables, so that those chains need no judge."""
    examples = tuple(examples)
    found = []
    for ruleset in others.rulesets:
        for base in ruleset.bases:
            if ours and base.variant in others.variants:
                continue
            for flow in examples:
                if (reason := why_dropped(ruleset, base, flow)) is not None:
                    found.append(_problem(base, flow, reason, network))
                    break
    return tuple(found)


def why_dropped(ruleset: Ruleset, base: BaseChain, flow: PacketFlow) -> str | None:
    """What drops the flow, None where nothing does or where that can't be told."""
    end = _Walk(ruleset, flow).through(base.chain)
    drops = end.drop
    if ChainVerdict.RETURN in end.ends and base.drops:
        drops = "by its policy"
    passes = ChainVerdict.ACCEPT in end.ends or (ChainVerdict.RETURN in end.ends and not base.drops)
    return None if passes else drops


@dataclass(frozen=True, slots=True)
class _End:
    """How a walk through a chain may end (ACCEPT, DROP, RETURN), and the last rule met that drops."""

    ends: frozenset[ChainVerdict]
    drop: str = ""


_ANY = _End(frozenset({ChainVerdict.ACCEPT, ChainVerdict.DROP, ChainVerdict.RETURN}))


class _Walk:
    def __init__(self, ruleset: Ruleset, flow: PacketFlow) -> None:
        self._chains = ruleset.chains
        self._flow = flow
        self._known: dict[ChainKey, _End] = {}

    def through(self, chain: ChainKey) -> _End:
        if chain not in self._chains:
            return _ANY
        if chain not in self._known:
            self._known[chain] = _ANY  # should it lead back to itself, which the kernel does not allow
            self._known[chain] = self._through(chain)
        return self._known[chain]

    def _through(self, chain: ChainKey) -> _End:
        ends: set[ChainVerdict] = set()
        drop = ""
        for rule in self._chains[chain]:
            answers = [condition.holds(self._flow) for condition in rule.conditions]
            if False in answers:
                continue
            here, goes_on = self._after(rule, chain)
            ends |= here.ends
            drop = here.drop or drop
            if not goes_on and None not in answers:
                return _End(frozenset(ends), drop)
        return _End(frozenset(ends | {ChainVerdict.RETURN}), drop)

    def _after(self, rule: ForeignRule, chain: ChainKey) -> tuple[_End, bool]:
        """What a rule that is met may lead to, and whether the next one may be reached."""
        match rule.verdict:
            case ChainVerdict.NONE:
                return _End(frozenset()), True
            case ChainVerdict.UNKNOWN:
                return _ANY, True
            case ChainVerdict.JUMP:
                below = self.through((*chain[:2], rule.target))
                return _End(below.ends - {ChainVerdict.RETURN}, below.drop), ChainVerdict.RETURN in below.ends
            case ChainVerdict.GOTO:
                return self.through((*chain[:2], rule.target)), False
            case ChainVerdict.DROP:
                return _End(frozenset({ChainVerdict.DROP}), f"by {rule.name} of chain {chain[2]}"), False
            case verdict:
                return _End(frozenset({verdict})), False


def _problem(base: BaseChain, flow: PacketFlow, reason: str, network: IPNetwork) -> Problem:
    family, table, chain = base.chain
    if base.variant is not None:
        whose = f"the chain {chain} of {base.variant.command}"
        remedy = f"{base.variant.command} -I {chain} -s {network} -d {network} -j ACCEPT"
    elif table == "firewalld":
        whose = f"firewalld (chain {chain})"
        remedy = f"firewall-cmd --permanent --zone=trusted --add-source={network} && firewall-cmd --reload"
    else:
        whose = f"the nftables chain {family} {table} {chain}"
        remedy = f"nft insert rule {family} {table} {chain} ip saddr {network} ip daddr {network} accept"
    return Problem("firewall-drops", f"{whose} drops {flow.what}, {reason}", f"Open it: {remedy}")
