"""The one place where anything is decided: from all that a pass knows (`Inputs`) to all that it wants
(`Decision`).

A pass is a value.  `decide` is pure and total, so nothing can change between what is read and what is decided, and
every situation can be tested as a value.  A Decision is carried by the Report of its pass; whatever is published
is published on the strength of that one pass.

Three rules hold throughout:

- A subnet in use is not given up for a reason that only concerns a new one.  An obstacle on this host keeps a new
  config from coming into force, and a new subnet from being claimed; a lease that stands is adopted and renewed.
- Nothing is swept before the first whole snapshot of the store, nor while a Tenure is undecided.
- What is wrong stays named for as long as it is wrong: every pass judges again.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address

from overlayd.core.firewall.conflicts import flows, judge
from overlayd.core.firewall.iptables import Variant
from overlayd.core.firewall.policy import NO_FIREWALL, Firewall, PacketFilter, describe
from overlayd.core.host.interest import Interest
from overlayd.core.host.preflight import PreflightRequest, find_obstacles, find_overlaps
from overlayd.core.host.snapshot import HostQuestion, HostSnapshot
from overlayd.core.host.stale_addresses import find_stale_addresses
from overlayd.core.host.underlay import (
    SAMPLES,
    HostFacts,
    InterfaceSelector,
    UnderlayError,
    choose_underlay,
    find_suspects,
    find_underlay_problems,
    name_unreachable,
)
from overlayd.core.kernel.driver import Scope
from overlayd.core.leases.book import LeaseBook
from overlayd.core.leases.codec import RecordError, check_writable
from overlayd.core.leases.lease import Attributes, Lease
from overlayd.core.leases.subnets import find_config_mismatch
from overlayd.core.leases.tenure import Belief, Tenure
from overlayd.core.network.addresses import IPAddress, IPNetwork, Mac, Subnet
from overlayd.core.network.backend import Backend, HostRequirements, make_view
from overlayd.core.network.backend_choice import Network, read_network
from overlayd.core.network.desired import DesiredState, state_desired
from overlayd.core.network.first_config import FirstConfig
from overlayd.core.network.view import NetworkView, Underlay
from overlayd.core.status.problem import Problem
from overlayd.core.status.status import FirewallStatus


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """The constants of a daemon's run: the identity of this node, and its operator's choices.

    `config_key` is where the network config stands, for messages.  `strict_fence`: stop forwarding, too, once the
    lease may have run out.  `forward_rules`: keep two rules in iptables by which FORWARD accepts what pods send
    and get.  `first_config` is written to a store that has no network config yet.
    """

    node_name: str
    node_id: str
    incarnation: str
    mac: Mac
    config_key: str
    selector: InterfaceSelector = None
    public_ip: IPv4Address | None = None
    strict_fence: bool = False
    firewall: Firewall = NO_FIREWALL
    forward_rules: bool = True
    first_config: FirstConfig | None = None


@dataclass(frozen=True, slots=True)
class Inputs:
    """All that a pass knows.

    `now` is in seconds of CLOCK_BOOTTIME.  `store_trouble` is what keeps the store from answering, "" otherwise.
    `links` are interfaces that were the underlay's earlier.  `published` is the subnet that subnet.env names,
    perhaps since an earlier life, and `given` are all that this node has published since its host was started.
    """

    now: float
    settings: NodeSettings
    backends: Mapping[str, type[Backend]]
    book: LeaseBook
    tenure: Tenure
    host: HostSnapshot
    store_trouble: str = ""
    links: frozenset[str] = frozenset()
    published: Subnet | None = None
    given: tuple[Subnet, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """The goal of a pass: the desired state, the scope of our items beyond our devices, and whether others go."""

    desired: DesiredState
    scope: Scope
    sweep: bool


class Publication(enum.Enum):
    """The fate of subnet.env and the CNI configuration."""

    KEEP = enum.auto()
    PUBLISH = enum.auto()
    """Once the kernel has what the node itself needs."""
    WITHDRAW = enum.auto()


@dataclass(frozen=True, slots=True)
class Decision:
    """All that a pass wants.

    `candidate` is the last sound config, `network` the one in force.  `advertised` is what this node's lease is
    to say, None while that is not known.  `may_claim`: no obstacle on this host keeps a new subnet from being
    claimed.  `view` and `target` are None while there is nothing to reach.
    `problems` are by subject.
    """

    at: float = 0.0
    candidate: Network | None = None
    network: Network | None = None
    underlay: Underlay | None = None
    advertised: Attributes | None = None
    may_claim: bool = False
    view: NetworkView | None = None
    target: Target | None = None
    publication: Publication = Publication.KEEP
    firewall: FirewallStatus | None = None
    problems: Mapping[str, tuple[Problem, ...]] = field(default_factory=dict)
    facts: HostFacts = field(default_factory=HostFacts, compare=False, repr=False)
    suspects: tuple[IPAddress, ...] = ()
    interest: Interest = field(default_factory=Interest)

    @property
    def question(self) -> HostQuestion:
        """What the next snapshot of the host is to find out."""
        targets = self.suspects[:SAMPLES]
        if self.candidate is None or (self.candidate == self.network and self.may_claim):
            return HostQuestion(targets=targets, interest=self.interest)
        return HostQuestion(self.candidate.backend.requirements(), self.underlay, targets, self.interest)

    def claims_differently(self, before: Decision) -> bool:
        """Tell whether the claimer has something new to decide on."""
        return (self.network, self.candidate, self.advertised, self.may_claim) != (
            before.network,
            before.candidate,
            before.advertised,
            before.may_claim,
        )

    def asks_again(self, before: Decision) -> bool:
        """Tell whether the next snapshot has something new to find out, so that the next pass is due at once."""
        new, old = self.question, before.question
        if new.interest.networks != old.interest.networks or new.interest.links != old.interest.links:
            return True
        return new != old and (new.requirements is not None or not set(new.targets) <= set(old.targets))


NOTHING_YET = Decision()


def decide(inputs: Inputs, before: Decision = NOTHING_YET) -> Decision:
    """Decide a whole pass.  `before` is the Decision of the pass before it."""
    settings, book, host, tenure = inputs.settings, inputs.book, inputs.host, inputs.tenure
    problems: dict[str, tuple[Problem, ...]] = {"host": host.problems}
    candidate, problems["config"] = before.candidate, ()
    if book.in_sync:
        candidate, problems["config"] = read_network(
            book.config, before.candidate, inputs.backends, settings.config_key
        )
    if settings.first_config is not None and candidate is not None:
        problems["first-config"] = settings.first_config.differs_from(candidate.config, settings.config_key)
    underlay, problems["underlay"] = _find_underlay(inputs, before)
    network, may_claim, problems["preflight"] = _put_in_force(inputs, candidate, underlay, before)
    problems["store-records"] = book.problems(network.config if network is not None else None)
    if inputs.store_trouble:
        problems["store"] = (Problem("store-unreachable", inputs.store_trouble),)
    advertised, problems["record"] = _advertise(settings, network or candidate, underlay)
    decision = Decision(inputs.now, candidate, network, underlay, advertised, may_claim, problems=problems)
    if network is None or underlay is None:
        return decision
    view = _see(inputs, network, underlay)
    filters = PacketFilter(
        settings.firewall,
        network.backend.requirements(),
        tenure.is_decided,
        host.firewalls.variants if settings.forward_rules else frozenset[Variant](),
    )
    last = before.target.desired if before.target is not None else None
    desired = state_desired((network.backend, filters), view, last)
    problems["firewalls"] = _judge_firewalls(inputs, view, desired, network.backend.requirements())
    suspects = _find_suspects(host, view, desired, before)
    problems["reach"] = name_unreachable(suspects, host.unreachable)
    if tenure.served is not None:
        networks = [leg.network for leg in view.legs]
        problems["stale-addresses"] = find_stale_addresses(
            host.used_addresses, (*networks, *_given(inputs)), tenure.served.subnet, book.leases
        )
    return Decision(
        inputs.now,
        candidate,
        network,
        underlay,
        advertised,
        may_claim,
        view,
        Target(desired, Scope(_links(inputs, underlay)), sweep=view.in_sync and tenure.is_decided),
        _publish(inputs, network),
        describe(settings.firewall, network.backend.requirements(), host.drops),
        problems,
        host.facts,
        suspects,
        _interest(inputs, network, candidate, view, desired, before),
    )


def _find_underlay(inputs: Inputs, before: Decision) -> tuple[Underlay | None, tuple[Problem, ...]]:
    """Choose the underlay; while none fits, keep to the one before and say why."""
    host, settings = inputs.host, inputs.settings
    if host.unreadable:
        return before.underlay, (Problem("no-underlay", host.unreadable),)
    try:
        underlay = choose_underlay(host.facts, settings.selector, settings.public_ip, host.lookup, before.underlay)
    except UnderlayError as error:
        return before.underlay, (Problem("no-underlay", str(error)),)
    return underlay, find_underlay_problems(host.facts, underlay)


def _put_in_force(
    inputs: Inputs, candidate: Network | None, underlay: Underlay | None, before: Decision
) -> tuple[Network | None, bool, tuple[Problem, ...]]:
    """Say which config is in force, whether a new subnet may be claimed under it, and what stands in the way.

    A candidate comes into force once this host is found fit for it.  After a restart it also does so for a lease
    that stands: the host was found fit when that was claimed.
    """
    if candidate is None or underlay is None:
        return before.network, False, ()
    if inputs.host.unreadable:
        return before.network, False, (Problem("kernel-silent", inputs.host.unreadable),)
    request = _request(inputs, candidate, underlay, before)
    if inputs.host.findings is not None:
        obstacles = find_obstacles(request, inputs.host.facts, inputs.host.findings)
    elif candidate == before.network:
        obstacles = find_overlaps(request, inputs.host.facts)
    else:
        return before.network, False, ()  # the next snapshot will tell
    served = inputs.tenure.served
    stands = served is not None and find_config_mismatch(candidate.config, served.subnet) is None
    if not obstacles or candidate == before.network or (before.network is None and stands):
        return candidate, not obstacles, obstacles
    return before.network, False, obstacles


def _advertise(
    settings: NodeSettings, network: Network | None, underlay: Underlay | None
) -> tuple[Attributes | None, tuple[Problem, ...]]:
    """State what this node's lease is to say, unless peers would not read it."""
    if network is None or underlay is None:
        return None, ()
    advertised = replace(
        network.backend.advertise(underlay, settings.mac),
        node_id=settings.node_id,
        node_name=settings.node_name,
        incarnation=settings.incarnation,
    )
    try:
        check_writable(advertised)
    except RecordError as error:
        return None, (Problem("lease-unwritable", f"what this node would write into its lease {error}"),)
    return advertised, ()


def _request(inputs: Inputs, network: Network, underlay: Underlay, before: Decision) -> PreflightRequest:
    requirements = network.backend.requirements()
    view = make_view(network.config, network.backend, underlay, inputs.settings.mac, None, (), in_sync=False)
    return PreflightRequest(
        view.legs,
        underlay,
        requirements.port,
        requirements.vni,
        requirements.tun,
        _links(inputs, underlay),
        _given(inputs),
        _OurRoutes(before.target.desired) if before.target is not None else frozenset(),
    )


@dataclass(frozen=True, slots=True)
class _OurRoutes:
    """Where routes of ours lead, by what is desired: a set that nobody has to make."""

    desired: DesiredState

    def __contains__(self, destination: object) -> bool:
        key = ("route", destination)
        return key in self.desired.base.by_key or self.desired.claims.get(key, 0) > 0


def _given(inputs: Inputs) -> tuple[IPNetwork, ...]:
    """List the prefixes that this node has given to pods, whatever the network is by now."""
    given = {*inputs.given, *((inputs.published,) if inputs.published is not None else ())}
    return tuple(prefix for subnet in sorted(given, key=lambda one: one.sort_key) for prefix in subnet.prefixes)


def _interest(
    inputs: Inputs,
    network: Network,
    candidate: Network | None,
    view: NetworkView,
    desired: DesiredState,
    before: Decision,
) -> Interest:
    """State what of the host's tables matters from now on."""
    configs = (network.config, *((candidate.config,) if candidate is not None else ()))
    networks = tuple(dict.fromkeys(span.network for config in configs for span in config.ranges))
    links = _links(inputs, view.underlay)
    added = {int(address) for address in _addresses(_fresh(desired, before), view)} - set(before.interest.peers)
    # an address too many is a glance too many, and no more: those of peers that left stay
    peers = tuple(sorted((*before.interest.peers, *added))) if added else before.interest.peers
    return Interest(networks, links, peers, everything=False)


def _find_suspects(
    host: HostSnapshot, view: NetworkView, desired: DesiredState, before: Decision
) -> tuple[IPAddress, ...]:
    """Find peers that may be unreachable; with the routes as before only those that are new have to be judged."""
    if before.facts is not host.facts:
        return find_suspects(host.facts, _addresses(view.peers, view))
    suspects = (*before.suspects, *find_suspects(host.facts, _addresses(_fresh(desired, before), view)))
    if not suspects:
        return ()
    present = set(_addresses(view.peers, view))
    return tuple(address for address in dict.fromkeys(suspects) if address in present)


def _fresh(desired: DesiredState, before: Decision) -> Iterable[Lease]:
    """List the leases that were not among the last pass's."""
    known = before.target.desired.parts if before.target is not None else {}
    return [desired.parts[key].lease for key in desired.parts.keys() - known.keys()]


def _addresses(leases: Iterable[Lease], view: NetworkView) -> Iterator[IPAddress]:
    """List the peers' addresses on the underlay."""
    family = view.underlay.family
    return (address for lease in leases if (address := lease.attributes.public_ip(family)) is not None)


def _links(inputs: Inputs, underlay: Underlay) -> frozenset[str]:
    """Name the interfaces by which direct routes of ours may go: the underlay's, and what was it earlier."""
    return frozenset({underlay.link, *inputs.links})


def _see(inputs: Inputs, network: Network, underlay: Underlay) -> NetworkView:
    served, book = inputs.tenure.served, inputs.book
    if _is_fenced_off(inputs):
        return _view(inputs, network, underlay, None, ())

    def is_own(lease: Lease) -> bool:
        same = served is not None and lease.subnet == served.subnet
        return same or lease.attributes.node_id == inputs.settings.node_id

    return _view(inputs, network, underlay, served, book.peers(network.config, is_own))


def _view(
    inputs: Inputs, network: Network, underlay: Underlay, lease: Lease | None, peers: tuple[Lease, ...]
) -> NetworkView:
    mac, in_sync = inputs.settings.mac, inputs.book.in_sync
    return make_view(network.config, network.backend, underlay, mac, lease, peers, in_sync=in_sync)


def _is_fenced_off(inputs: Inputs) -> bool:
    return inputs.settings.strict_fence and inputs.tenure.belief(inputs.now) is Belief.FENCED


def _judge_firewalls(
    inputs: Inputs, view: NetworkView, desired: DesiredState, requirements: HostRequirements
) -> tuple[Problem, ...]:
    others = inputs.host.firewalls
    examples = flows(view, desired, requirements, bridged=others.bridged)
    return (*others.problems, *judge(others, examples, inputs.settings.forward_rules))


def _publish(inputs: Inputs, network: Network) -> Publication:
    served = inputs.tenure.served
    if _is_fenced_off(inputs) or (served is None and _is_given_up(inputs, network)):
        return Publication.WITHDRAW
    return Publication.PUBLISH if served is not None else Publication.KEEP


def _is_given_up(inputs: Inputs, network: Network) -> bool:
    """Tell whether the subnet that is published is known not to be ours to give addresses from."""
    subnet, book = inputs.published, inputs.book
    if inputs.tenure.is_lost:
        return True
    if subnet is None or not book.in_sync:
        return False
    others = (lease for lease in book.leases if lease.attributes.node_id != inputs.settings.node_id)
    taken = any(lease.subnet.overlaps(subnet) for lease in others)
    return taken or find_config_mismatch(network.config, subnet) is not None
