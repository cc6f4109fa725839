"""The last finished Status of this node: composed whenever a part has news, answered to every query."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from overlayd.core.kernel.datapath import DatapathReport
from overlayd.core.leases.book import LeaseBook
from overlayd.core.leases.tenure import Tenure
from overlayd.core.report import Report
from overlayd.core.status.builder import NodeInfo, StatusInputs, compose_status, judge_peers, with_datapath
from overlayd.core.status.health import answer
from overlayd.core.status.status import StatusAnswer
from overlayd.node.problem_log import ProblemLog


class StatusBoard:
    """`datapath` is what the userspace datapath says of itself, None where there is none."""

    def __init__(
        self,
        node: NodeInfo,
        problems: ProblemLog,
        clock: Callable[[], float],
        datapath: Callable[[], DatapathReport | None],
    ) -> None:
        self._problems = problems
        self._clock = clock
        self._datapath = datapath
        self._inputs = StatusInputs(node, node.started, Tenure(), 0.0, in_sync=False, revision=0)
        self._status = compose_status(self._inputs)

    def note_store(self, book: LeaseBook) -> None:
        self._compose(replace(self._inputs, in_sync=book.in_sync, revision=book.position))

    def note_tenure(self, tenure: Tenure) -> None:
        old, new, now = self._inputs.tenure.served, tenure.served, self._clock()
        is_new = new is not None and (old is None or old.subnet != new.subnet)
        since = now if is_new else self._inputs.leased_since
        self._compose(replace(self._inputs, tenure=tenure, leased_since=since))

    def note_report(self, report: Report) -> None:
        peers = judge_peers(report, self._inputs.peers)
        self._compose(replace(self._inputs, report=report, peers=peers))

    def note_problems(self) -> None:
        self._compose(self._inputs)

    def _compose(self, inputs: StatusInputs) -> None:
        self._inputs = replace(
            inputs,
            at=self._clock(),
            problems=self._problems.all(),
            conditions=self._status.conditions,
        )
        self._status = compose_status(self._inputs)

    def answer(self) -> StatusAnswer:
        """Say what is known when asked now; touches neither the kernel nor the store."""
        return answer(with_datapath(self._status, self._datapath()), self._clock())
