"""The daemon of one node: builds the parts and joins them in one nursery.

Nothing else sees everything.  What the parts share is held here as plain values that are replaced whole:
the LeaseBook, the network config, the underlay, the keeper's state, the reconciler's last report.  Each change
rings the bells of those who depend on it; each of them then reads what it needs afresh.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Network
from pathlib import Path

import trio

from overlayd import __version__
from overlayd.core.firewall.conflicts import ForeignFirewalls, flows, judge
from overlayd.core.firewall.policy import (
    NO_FIREWALL,
    Firewall,
    describe,
    with_firewall,
    with_forward_rules,
)
from overlayd.core.host.preflight import PreflightRequest
from overlayd.core.host.stale_addresses import UsedAddress, find_stale_addresses
from overlayd.core.host.underlay import UnderlayError
from overlayd.core.kernel.datapath import DatapathReport
from overlayd.core.kernel.driver import Driver, Scope
from overlayd.core.kernel.report import Report, Target
from overlayd.core.leases.book import LeaseBook, absorb_changes, absorb_snapshot
from overlayd.core.leases.codec import RecordError, check_writable
from overlayd.core.leases.keeper import KeeperState, StoreView, StoreViewed, belief
from overlayd.core.leases.lease import Attributes, Lease
from overlayd.core.leases.store import Changes, Record, Store
from overlayd.core.leases.subnets import find_config_mismatch
from overlayd.core.leases.tenure import Belief, Waiting
from overlayd.core.network.addresses import Family, Subnet
from overlayd.core.network.backend import Backend, DesiredState
from overlayd.core.network.backend_choice import check_backend
from overlayd.core.network.config import ConfigError, NetworkConfig, parse_config
from overlayd.core.network.view import NetworkView, Underlay
from overlayd.core.status.builder import NodeInfo, StatusInputs, compose_status, judge_peers, with_datapath
from overlayd.core.status.problem import Problem
from overlayd.core.status.status import FirewallStatus, PeerStatus, Status, StatusAnswer, answer
from overlayd.host.cleanup_state import CleanupStateFile
from overlayd.host.cni_publisher import CniPublisher
from overlayd.host.conflist import ConflistFile
from overlayd.host.firewall_conflicts import no_foreign_firewalls
from overlayd.host.identity import Identity
from overlayd.host.subnet_file import SubnetFile
from overlayd.node.config_bootstrap import ConfigBootstrap, FirstConfig
from overlayd.node.lease_runner import LeaseRunner
from overlayd.node.problem_log import ProblemLog
from overlayd.node.reconciler import RESYNC, Reconciler
from overlayd.node.store_watch import follow

log = logging.getLogger("overlayd.daemon")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator decided for this node; see `overlayd run --help`.  `lease_ttl` in seconds.

    `strict_fence`: stop forwarding, too, once the lease may have run out.  `exit_on_new_subnet`: end with
    SubnetChanged when the subnet was lost and another one leased.  `first_config` is written to a store that has
    no network config yet.  `cni` is where to write the CNI configuration, and where the plugins are.
    `forward_rules`: keep the two rules in iptables by which FORWARD accepts what pods send and get.
    """

    node_name: str
    etcd_prefix: str
    subnet_file: Path
    lease_ttl: int
    strict_fence: bool = False
    exit_on_new_subnet: bool = False
    firewall: Firewall = NO_FIREWALL
    first_config: FirstConfig | None = None
    cni: ConflistFile | None = None
    forward_rules: bool = True


class SubnetChanged(Exception):
    """This node has another subnet than before, and is to end because of that."""


@dataclass(frozen=True, slots=True)
class Network:
    """A network config as it was read, and the backend that it asks for."""

    record: Record
    config: NetworkConfig
    backend: Backend

    def intent(self, underlay: Underlay, links: frozenset[str]) -> PreflightRequest:
        """What the host is about to be asked for."""
        span, needs = self.config.ranges[0], self.backend.needs()
        assert isinstance(span.network, IPv4Network)
        return PreflightRequest(span.network, span.subnet_len, underlay, needs.port, needs.vni, needs.tun, links)


@dataclass(frozen=True, slots=True)
class HostEdges:
    """The edges to the machine, as functions that a simulation can replace.

    `underlay` raises UnderlayError; `preflight` says what keeps an intent from being carried out;
    `used_addresses` are the addresses in use on this host; `clock` tells the seconds of CLOCK_BOOTTIME;
    `datapath` is what the userspace datapath says of itself, None where none is asked for; `drops` are the packets
    that the kernel's filter has dropped for us, by reason, and raises OSError; so does `others`, which says which
    firewalls somebody else has here.
    """

    driver: Driver
    underlay: Callable[[], Awaitable[Underlay]]
    preflight: Callable[[PreflightRequest], Awaitable[tuple[Problem, ...]]]
    used_addresses: Callable[[], Awaitable[tuple[UsedAddress, ...]]]
    clock: Callable[[], float]
    cleanup_state: CleanupStateFile
    datapath: Callable[[], DatapathReport | None] = lambda: None
    drops: Callable[[], Mapping[str, int]] = dict
    others: Callable[[], Awaitable[ForeignFirewalls]] = no_foreign_firewalls


class Daemon:
    """One node's daemon; `run` lasts until it is cancelled, and leaves forwarding as it is."""

    def __init__(
        self,
        settings: Settings,
        identity: Identity,
        store: Store,
        host: HostEdges,
        backends: Mapping[str, type[Backend]],
        chance: random.Random,
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._store = store
        self._host = host
        self._backends = backends
        self._chance = chance
        self._node = NodeInfo(__version__, settings.node_name, identity.node_id, host.clock(), RESYNC)
        self._cni_publisher = CniPublisher(SubnetFile(settings.subnet_file), settings.cni, host.cleanup_state)
        self._problems = ProblemLog()
        self._problems.replace("identity", identity.problems)
        self._book = LeaseBook()
        self._candidate: Network | None = None
        """The last sound config that was read; in force only once this host was found fit for it."""
        self._network: Network | None = None
        """The one in force."""
        self._underlay: Underlay | None = None
        self._aimed_for: Subnet | None = None
        self._report: Report | None = None
        self._looked_at = host.clock()
        self._firewall: FirewallStatus | None = None
        self._others = ForeignFirewalls()
        """The firewalls of somebody else's, as they were seen last."""
        self._belief = Belief.UNCLAIMED
        self._leased_since = 0.0
        self._first_subnet: Subnet | None = None
        self._peers: tuple[Lease, ...] = ()
        self._peer_statuses: tuple[PeerStatus, ...] = ()
        self._incarnation = f"{chance.getrandbits(64):016x}"
        keeper = KeeperState(
            identity.node_id,
            self._incarnation,
            settings.lease_ttl,
            previous=self._cni_publisher.find_subnet(),
        )
        self._leasing = LeaseRunner(
            store, keeper, self._keeper_input, self._relist, self._lease_decided, host.clock, chance
        )
        self._config_bootstrap = (
            ConfigBootstrap(store, settings.first_config, self._lacks_config) if settings.first_config else None
        )
        self._reconciler = Reconciler(host.driver, self._target, self._reconciled, host.clock)
        self._status = self._compose_now()

    async def run(self) -> None:
        log.info("started", extra={"version": __version__, "node": self._node.name})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow, self._store, self._relist, self._absorb, self._store_trouble, self._chance)
            nursery.start_soon(self._leasing.run)
            if self._config_bootstrap is not None:
                nursery.start_soon(self._config_bootstrap.run)
            nursery.start_soon(self._reconciler.run)

    # From the store

    async def _relist(self) -> int:
        """Read the whole store; its revision."""
        asked_at = self._book.revision
        snapshot = await self._store.snapshot()
        self._take(absorb_snapshot(self._book, snapshot, asked_at))
        return snapshot.revision

    def _absorb(self, changes: Changes) -> None:
        self._take(absorb_changes(self._book, changes))

    def _take(self, book: LeaseBook) -> None:
        before, self._book = self._book, book
        if book.entries != before.entries or (book.in_sync, book.went_back) != (before.in_sync, before.went_back):
            self._read_config(book.config)
            self._judge_first_config()
            self._leasing.wake_up.ring()
            self._reconciler.wake_up.ring()

    def _lacks_config(self) -> bool:
        return self._book.in_sync and self._book.config is None

    def _judge_first_config(self) -> None:
        """Have it written where there is none; where there is another, say so."""
        first, found = self._settings.first_config, self._candidate
        if self._config_bootstrap is not None:
            self._config_bootstrap.wake_up.ring()
        if first is not None and found is not None:
            key = f"{self._settings.etcd_prefix}/config"
            self._problems.replace("first-config", first.differs_from(found.config, key))

    def _store_trouble(self, reason: str) -> None:
        self._problems.replace("store", [Problem("store-unreachable", reason)] if reason else ())
        self._compose()

    def _read_config(self, record: Record | None) -> None:
        """Take over a new config if it is sound; else keep to the one before, and say what is wrong."""
        key = f"{self._settings.etcd_prefix}/config"
        if record is None:
            trouble = Problem(
                "no-config", f"there is no network config at {key}", "Write one: `overlayd config set FILE`"
            )
            self._problems.replace("config", [trouble])
            return
        if self._candidate is not None and self._candidate.record == record:
            self._problems.replace("config", ())
            return
        try:
            config = parse_config(record.value)
            self._candidate = Network(record, config, check_backend(config, self._backends))
        except ConfigError as error:
            trouble = Problem(
                "config-invalid",
                f"the network config at {key} can't be used: {'; '.join(str(error).splitlines())}",
                "Mend it: `overlayd config check FILE`, then `overlayd config set FILE`",
            )
            self._problems.replace("config", [trouble])
            return
        self._problems.replace("config", ())
        log.info(
            "network config read",
            extra={
                "revision": record.mod_revision,
                "backend": config.backend_type,
                "network": config.ranges[0].network,
            },
        )

    # To the store

    def _keeper_input(self) -> StoreViewed | None:
        """What the keeper may decide on; nothing before this host has been found fit for the network."""
        network, underlay, book = self._network, self._underlay, self._book
        if network is None or underlay is None or not book.in_sync:
            return None
        wanted = self._attributes(network.backend, underlay)
        try:
            check_writable(wanted)
        except RecordError as error:
            unwritable = Problem("lease-unwritable", f"what this node would write into its lease {error}")
            self._problems.replace("record", [unwritable])
            return None
        self._problems.replace("record", ())
        store_view = StoreView(
            book.revision,
            network.record.mod_revision,
            network.config,
            book.leases,
            book.taken,
            book.holds,
            book.returns,
            book.is_frozen,
            book.damaged,
            config_is_current=book.config == network.record,
        )
        return StoreViewed(store_view, wanted)

    def _attributes(self, backend: Backend, underlay: Underlay) -> Attributes:
        advertised = backend.advertise(underlay, self._identity.mac)
        return replace(
            advertised,
            node_id=self._identity.node_id,
            node_name=self._settings.node_name,
            incarnation=self._incarnation,
        )

    def _lease_decided(self, before: KeeperState, after: KeeperState) -> None:
        now = self._host.clock()
        old, new = before.served, after.served
        if new is not None and (old is None or old.subnet != new.subnet):
            self._leased_since = now
            log.info("subnet leased", extra={"subnet": new.subnet})
        if old is not None and (new is None or new.subnet != old.subnet):
            reason = f"it {after.config_mismatch}" if after.config_mismatch else f"it went to {after.lost_to}"
            log.warning("subnet lost", extra={"subnet": old.subnet, "reason": reason})
        believed = belief(after, now)
        if believed is not self._belief:
            log.info("lease belief changed", extra={"belief": believed.value, "reason": after.complaint})
        if old != new or believed is not self._belief:
            self._reconciler.wake_up.ring()
        if after is not before or believed is not self._belief:
            self._belief = believed
            self._compose()
        if new is not None and believed is Belief.HELD:
            self._note_subnet(new.subnet)

    def _note_subnet(self, subnet: Subnet) -> None:
        first = self._first_subnet = self._first_subnet or subnet
        if subnet != first and self._settings.exit_on_new_subnet:
            raise SubnetChanged(f"this node's subnet was {first} and is {subnet} now")

    # From and to the kernel

    async def _target(self) -> Target | None:
        self._looked_at = self._host.clock()
        await self._look_at_underlay()
        await self._look_before_leaping()
        network, underlay = self._network, self._underlay
        config = network.config if network is not None else None
        self._problems.replace("store-records", self._book.problems(config))
        if network is None or underlay is None:
            self._compose()
            return None
        view = self._view(network, underlay)
        self._note_peers(view.peers)
        self._aimed_for = view.lease.subnet if view.lease is not None else None
        needs = network.backend.needs()
        decided = self._has_decided()
        desired = with_firewall(
            network.backend.desired(view), self._settings.firewall, view, needs, decided=decided
        )
        desired = await self._heed_others(desired, view)
        return Target(desired, Scope(self._links(underlay)), sweep=view.in_sync and decided)

    async def _heed_others(self, desired: DesiredState, view: NetworkView) -> DesiredState:
        """Have others' firewalls let the pods' packets pass, or say which of them does not."""
        with suppress(OSError):  # the reconciler asks the same kernel, and speaks up
            self._others = await self._host.others()
        network, ours = view.config.ranges[0].network, self._settings.forward_rules
        examples = flows(view, desired, bridged=self._others.bridged)
        troubles = judge(self._others, examples, network, ours)
        self._problems.replace("others", [*self._others.problems, *troubles])
        return with_forward_rules(desired, network, self._others.variants) if ours else desired

    def _links(self, underlay: Underlay) -> frozenset[str]:
        """The interfaces by which direct routes of ours may go: the underlay's, and what was it earlier."""
        return frozenset({underlay.link, *self._host.cleanup_state.known.links})

    def _has_decided(self) -> bool:
        """Whether the keeper knows what has become of our subnet: right after a start, an address that nobody
        claims yet may well be ours."""
        keeper = self._leasing.state
        waits = keeper.waits_for not in (None, Waiting.THAW)
        return keeper.served is not None or waits or bool(keeper.lost_to or keeper.config_mismatch)

    async def _look_at_underlay(self) -> None:
        try:
            underlay = await self._host.underlay()
        except (UnderlayError, OSError) as error:
            self._problems.replace("underlay", [Problem("no-underlay", str(error))])
            return
        self._problems.replace("underlay", ())
        if underlay != self._underlay:
            self._problems.replace("footprint", self._host.cleanup_state.note(link=underlay.link))
            log.info(
                "underlay found", extra={"link": underlay.link, "address": underlay.address, "mtu": underlay.mtu}
            )
            self._underlay = underlay
            self._leasing.wake_up.ring()

    async def _look_before_leaping(self) -> None:
        """Put a new config in force once this host is found fit for it; until then the one before it stays."""
        candidate, underlay = self._candidate, self._underlay
        if candidate is None or underlay is None or candidate == self._network:
            return
        intent = candidate.intent(underlay, self._links(underlay))
        try:
            troubles = await self._host.preflight(intent)
        except OSError as error:
            troubles = (Problem("kernel-silent", f"the kernel can't be asked: {error}"),)
        self._problems.replace("preflight", troubles)
        if not troubles:
            self._network = candidate
            self._leasing.wake_up.ring()

    def _view(self, network: Network, underlay: Underlay) -> NetworkView:
        served = self._leasing.state.served
        if self._is_fenced_off():
            return NetworkView(network.config, underlay, self._identity.mac, None, (), self._book.in_sync)

        def is_own(lease: Lease) -> bool:
            same = served is not None and lease.subnet == served.subnet
            return same or lease.attributes.node_id == self._identity.node_id

        peers = self._book.peers(network.config, is_own)
        return NetworkView(network.config, underlay, self._identity.mac, served, peers, self._book.in_sync)

    def _is_fenced_off(self) -> bool:
        fenced = belief(self._leasing.state, self._host.clock()) is Belief.FENCED
        return fenced and self._settings.strict_fence

    def _note_peers(self, peers: tuple[Lease, ...]) -> None:
        before = {lease.subnet: lease.attributes for lease in self._peers}
        after = {lease.subnet: lease.attributes for lease in peers}
        for subnet, attributes in after.items():
            if before.get(subnet) != attributes:
                event = "peer changed" if subnet in before else "peer joined"
                log.info(event, extra=_peer_fields(subnet, attributes))
        for subnet in before.keys() - after.keys():
            log.info("peer left", extra=_peer_fields(subnet, before[subnet]))
        self._peers = peers

    async def _reconciled(self, report: Report) -> None:
        self._report = report
        self._peer_statuses = judge_peers(self._peers, report, self._peer_statuses, self._host.clock())
        network, served = self._network, self._leasing.state.served
        assert network is not None
        if self._is_fenced_off() or (served is None and self._is_given_up(network)):
            self._problems.replace("handover", self._cni_publisher.withdraw())
        elif served is not None and report.is_reached(report.target.desired.base):
            mtu, ipmasq = report.target.desired.mtu, self._settings.firewall.masquerade
            troubles = self._cni_publisher.offer(network.config, served.subnet, mtu, ipmasq=ipmasq)
            self._problems.replace("handover", troubles)
        self._look_at_drops(network)
        if served is not None:
            await self._find_stale_addresses(network, served.subnet)
        self._compose()

    def _look_at_drops(self, network: Network) -> None:
        try:
            drops = self._host.drops()
        except OSError as error:
            self._problems.replace("drops", [Problem("kernel-silent", f"nf_tables can't be asked: {error}")])
            return
        self._problems.replace("drops", ())
        self._firewall = describe(self._settings.firewall, network.backend.needs(), drops)

    def _is_given_up(self, network: Network) -> bool:
        """Whether the subnet in the subnet file, perhaps an earlier life's, is not ours to give addresses from."""
        keeper, subnet = self._leasing.state, self._cni_publisher.find_subnet()
        if keeper.lost_to or keeper.config_mismatch:
            return True
        if subnet is None or not self._book.in_sync:
            return False
        others = (lease for lease in self._book.leases if lease.attributes.node_id != self._identity.node_id)
        taken = any(lease.subnet.overlaps(subnet) for lease in others)
        return taken or find_config_mismatch(network.config, subnet) is not None

    async def _find_stale_addresses(self, network: Network, own: Subnet) -> None:
        try:
            used_addresses = await self._host.used_addresses()
        except OSError:
            return  # the reconciler asks the same kernel, and speaks up
        networks = [span.network for span in network.config.ranges]
        self._problems.replace("strays", find_stale_addresses(used_addresses, networks, own, self._book.leases))

    # To whoever asks

    def _compose(self) -> None:
        """Replace the status by one of this moment."""
        self._status = self._compose_now()

    def _compose_now(self) -> Status:
        network = self._network
        facts = StatusInputs(
            node=self._node,
            at=self._host.clock(),
            looked_at=self._looked_at,
            keeper=self._leasing.state,
            leased_since=self._leased_since,
            in_sync=self._book.in_sync,
            revision=self._book.revision,
            network=str(network.config.ranges[0].network) if network is not None else None,
            backend=network.config.backend_type if network is not None else None,
            underlay=self._underlay,
            peers=self._peer_statuses,
            report=self._report,
            aimed_for=self._aimed_for,
            problems=self._problems.all(),
            firewall=self._firewall,
        )
        return compose_status(facts)

    def answer(self) -> StatusAnswer:
        """What this daemon says when asked now; touches neither the kernel nor the store."""
        return answer(with_datapath(self._status, self._host.datapath()), self._host.clock())

    @property
    def keeper(self) -> KeeperState:
        return self._leasing.state


def _peer_fields(subnet: object, attributes: Attributes) -> dict[str, object]:
    return {
        "node": attributes.node_name,
        "subnet": subnet,
        "public_ip": attributes.public_ip(Family.IPV4) or attributes.public_ip(Family.IPV6),
        "backend": attributes.backend,
    }
