"""The daemon of one node: builds the parts and joins them in one nursery.

Four flows meet here, each one way: news of the store, the own lease, passes over the kernel, and questions about
status.  What is to be done is decided in `overlayd.core.decide`; here the parts are only connected.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from typing import Any

import trio

from overlayd import __version__
from overlayd.core.changes import changes_of_decision, changes_of_tenure
from overlayd.core.claim import claim_request
from overlayd.core.decide import NOTHING_YET, Decision, Inputs, decide
from overlayd.core.leases.claimer import Claimant, Claimer
from overlayd.core.leases.source import LeaseStore
from overlayd.core.leases.tenure import Tenure
from overlayd.core.network.backend import Backend
from overlayd.core.report import Report, publication
from overlayd.core.status.builder import NodeInfo
from overlayd.core.status.status import StatusAnswer
from overlayd.host.cni_publisher import CniPublisher
from overlayd.host.identity import Identity
from overlayd.host.subnet_file import SubnetFile
from overlayd.node.config_bootstrap import ConfigBootstrap
from overlayd.node.lease_runner import LeaseRunner
from overlayd.node.log import log_events
from overlayd.node.problem_log import ProblemLog
from overlayd.node.reconciler import RESYNC, Reconciler
from overlayd.node.settings import HostEdges, Settings
from overlayd.node.status_board import StatusBoard
from overlayd.node.store_watch import follow
from overlayd.node.subnet_guard import SubnetGuard

log = logging.getLogger("overlayd.daemon")


class Daemon:
    """One node's daemon; `run` lasts until it is cancelled, and leaves forwarding as it is."""

    def __init__(
        self,
        settings: Settings,
        identity: Identity,
        store: LeaseStore,
        host: HostEdges,
        backends: Mapping[str, type[Backend]],
        chance: random.Random,
    ) -> None:
        self._node = settings.of_node(identity, f"{chance.getrandbits(64):016x}")
        self._source, self._host, self._backends, self._chance = store.source, host, backends, chance
        self._decision = NOTHING_YET
        self._store_trouble = ""
        self._stepped_at = host.clock()
        self._problems = ProblemLog()
        self._problems.replace("identity", identity.problems)
        self._publisher = CniPublisher(SubnetFile(settings.subnet_file), settings.cni, host.cleanup_state)
        self._guard = SubnetGuard(exit_on_new_subnet=settings.exit_on_new_subnet)
        info = NodeInfo(__version__, settings.node_name, identity.node_id, host.clock(), RESYNC)
        self._board = StatusBoard(info, self._problems, host.clock, host.datapath)
        published = self._publisher.find_subnet()
        claimant = Claimant(identity.node_id, self._node.incarnation, settings.lease_ttl, published)
        claims = store.claims(claimant, lambda: claim_request(self._decision), host.clock)
        self._runner = LeaseRunner(claims, self._stepped, host.clock, chance)
        self._bootstrap = ConfigBootstrap(self._source, settings.first_config) if settings.first_config else None
        self._reconciler = Reconciler(host.driver, self._decide, self._finish, host.clock)
        self._source.subscribe(self._note_store)

    async def run(self) -> None:
        log.info("started", extra={"version": __version__, "node": self._node.node_name})
        async with self._host.probe.watch(self._host_changed), trio.open_nursery() as nursery:
            nursery.start_soon(follow, self._source, self._note_trouble, self._chance)
            nursery.start_soon(self._runner.run)
            if self._bootstrap is not None:
                nursery.start_soon(self._bootstrap.run)
            nursery.start_soon(self._reconciler.run)

    # News of a part to the parts that read it

    def _note_store(self, is_new: bool) -> None:
        self._board.note_store(self._source.book)
        if is_new:
            self._runner.wake_up.ring()
            self._reconciler.wake_up.ring("store")
            if self._bootstrap is not None:
                self._bootstrap.wake_up.ring()

    def _note_trouble(self, reason: str) -> None:
        if reason != self._store_trouble:
            self._store_trouble = reason
            self._reconciler.wake_up.ring("store")

    def _stepped(self, old: Tenure, new: Tenure) -> None:
        was, self._stepped_at = self._stepped_at, self._host.clock()
        events = list(changes_of_tenure(old, new, was, self._stepped_at))
        log_events(events)
        if old != new or events:
            self._board.note_tenure(new)
        if events or not new.decides_as(old):
            self._reconciler.wake_up.ring("lease")
        self._guard.note(new, self._stepped_at)

    def _host_changed(self) -> None:
        self._reconciler.wake_up.ring("host")

    async def _decide(self) -> Decision:
        host = await self._host.probe.look(self._decision.question)
        known = self._host.cleanup_state
        inputs = Inputs(
            self._host.clock(),
            self._node,
            self._backends,
            self._source.book,
            self._runner.tenure,
            host,
            self._store_trouble,
            frozenset(known.known.links),
            self._publisher.find_subnet(),
            known.given,
        )
        before, now = self._decision, decide(inputs, self._decision)
        self._decision = now
        log_events(changes_of_decision(before, now))
        if now.underlay is not None:  # before a route goes by it, so that cleanup can find that route
            self._problems.replace("run-dir", known.note(link=now.underlay.link))
        self._problems.replace_decided(now.problems)
        if now.claims_differently(before):
            self._runner.wake_up.ring()
        if now.asks_again(before):
            self._reconciler.wake_up.ring("config")
        return now

    async def _finish(self, report: Report) -> None:
        outcome = publication(report, self._runner.tenure)
        problems = self._publisher.carry_out(outcome, report.decision, ipmasq=self._node.firewall.masquerade)
        self._problems.replace("publication", problems)
        self._board.note_report(report)

    def answer(self) -> StatusAnswer:
        """Say what this daemon says when asked now; touches neither the kernel nor the store."""
        return self._board.answer()

    @property
    def claimer(self) -> Claimer[Any, Any]:
        return self._runner.claimer
