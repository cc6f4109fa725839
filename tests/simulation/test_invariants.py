"""Each invariant can be broken: a daemon sabotaged in one place breaks that one, and is found out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import pytest
import trio

from overlayd.core.decide import Decision, Inputs, decide
from overlayd.core.kernel import tracker
from overlayd.core.kernel.items import Item, KernelState, Key, Link
from overlayd.core.kernel.pace import Pace
from overlayd.core.kernel.plan import Plan, diff
from overlayd.core.leases.keeper import recognition
from overlayd.core.leases.lease import Lease
from overlayd.core.leases.records import RecordBook, absorb_changes
from overlayd.core.leases.store import Changes
from overlayd.core.network.backend import PeerRefusedError
from overlayd.core.network.view import NetworkView
from overlayd.core.status import builder, conditions, health
from overlayd.core.status.problem import Problem
from overlayd.core.status.status import Verdict
from overlayd.node import daemon, reconciler, store_watch
from overlayd.node.problem_log import ProblemLog
from overlayd.node.reconciler import Reconciler
from overlayd.node.wakeup import WakeUp
from overlayd.store import leases
from overlayd.store.memory import MemoryStore
from overlayd.testing.kernel import FakeKernel
from overlayd.testing.simulation.invariants import Invariants
from overlayd.testing.simulation.run import run_scenario
from overlayd.testing.simulation.scenario import Fault, Scenario
from overlayd_backends.vxlan import VxlanBackend

Sabotage = Callable[[pytest.MonkeyPatch], None]


def scenario(*faults: Fault, subnets: int | None = None, ttl: int = 30) -> Scenario:
    return Scenario(0, 3, ttl, subnets, faults)


def breach(given: Scenario) -> str:
    found = run_scenario(given).breach
    return found.invariant if found is not None else ""


async def nothing(*_: object) -> None:
    pass


CUT_OFF = tuple(Fault("partition", 40.0, 100.0, node, salt) for salt, node in enumerate([1, 2]))
LATE = Fault("daemon-kill", 120.0, 5.0, 1, 0)
ONE_BY_ONE = tuple(Fault("stop", 100.0 * node, 70.0, node, 0) for node in (1, 2, 3))
KILLED = Fault("daemon-kill", 40.0, 200.0, 1, 0)
MOVED = Fault("address-changed", 40.0, 1.0, 1, 0)


def believe_for_too_long(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(recognition, "margin", lambda ttl: -1000.0)


def let_every_guard_hold(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MemoryStore, "_holds", lambda *_: True)


def never_sweep(patch: pytest.MonkeyPatch) -> None:
    def lenient(
        desired: KernelState, actual: KernelState, *, sweep: bool, all_desired: Mapping[Key, Item] | None = None
    ) -> Plan:
        return diff(desired, actual, sweep=False, all_desired=all_desired)

    patch.setattr(tracker, "diff", lenient)


def keep_to_what_was_first_told(patch: pytest.MonkeyPatch) -> None:
    def deaf(book: RecordBook, changes: Changes) -> RecordBook:
        news = tuple(change for change in changes.changes if change.name not in book.entries)
        return absorb_changes(book, replace(changes, changes=news))

    patch.setattr(leases, "absorb_changes", deaf)
    patch.setattr(store_watch, "RELIST", 10_000.0)
    patch.setattr(Invariants, "kernel_is_as_desired", nothing)
    patch.setattr(Invariants, "peers_agree", lambda *_: None)


def refuse_the_others_on_one_node(patch: pytest.MonkeyPatch) -> None:
    original = VxlanBackend.peer

    def picky(self: VxlanBackend, view: NetworkView, lease: Lease) -> Iterable[Item]:
        if view.mac.packed[-1] == 1:
            raise PeerRefusedError("is not liked")
        return original(self, view, lease)

    patch.setattr(VxlanBackend, "peer", picky)


def take_every_vxlan_device_for_ours(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(FakeKernel, "_is_ours", lambda self, name: isinstance(self.links.get(name), Link))


def always_say_healthy(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(health, "_judge", lambda *_: (Verdict.HEALTHY, ""))


def believe_old_news_of_the_kernel(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reconciler, "RESYNC", 1000.0)
    patch.setattr(conditions, "STALE_AFTER", 1000.0)


def keep_silent_about_the_store(patch: pytest.MonkeyPatch) -> None:
    replace_problems = ProblemLog.replace

    def forgetful(self: ProblemLog, source: str, problems: tuple[Problem, ...]) -> None:
        replace_problems(self, source, () if source == "store" else problems)

    patch.setattr(ProblemLog, "replace", forgetful)
    patch.setattr(builder, "lease_problems", lambda _: ())


def ask_again_at_once(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(store_watch, "RETRY_LAST", 0.0)


def look_again_at_once(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Reconciler, "_until_next", lambda *_: 0.0)
    patch.setattr(Pace, "pause", lambda *_: 0.01)


def run_in_circles(patch: pytest.MonkeyPatch) -> None:
    async def dont_wait(self: WakeUp, at_most: float | None = None) -> frozenset[str]:
        await trio.lowlevel.checkpoint()
        return frozenset()

    patch.setattr(WakeUp, "wait", dont_wait)
    patch.setattr(Pace, "pause", lambda *_: 0.0)


def stumble(patch: pytest.MonkeyPatch) -> None:
    def fall(inputs: Inputs, before: Decision) -> Decision:
        if inputs.book.leases:
            raise ZeroDivisionError("sabotage")
        return decide(inputs, before)

    patch.setattr(daemon, "decide", fall)


def bear_grudges(patch: pytest.MonkeyPatch) -> None:
    replace_problems = ProblemLog.replace

    def unforgiving(self: ProblemLog, source: str, problems: tuple[Problem, ...]) -> None:
        if problems:
            replace_problems(self, source, problems)

    patch.setattr(ProblemLog, "replace", unforgiving)


@pytest.mark.parametrize(
    ("invariant", "sabotage", "given"),
    [
        ("held-once", believe_for_too_long, scenario(*ONE_BY_ONE, subnets=1)),
        ("held-once", let_every_guard_hold, scenario(subnets=1)),
        ("kernel-as-desired", never_sweep, scenario(KILLED)),
        ("no-route-astray", keep_to_what_was_first_told, scenario(MOVED)),
        ("peers-agree", refuse_the_others_on_one_node, scenario()),
        ("foreign-untouched", take_every_vxlan_device_for_ours, scenario()),
        ("status-honest", always_say_healthy, scenario()),
        ("status-honest", believe_old_news_of_the_kernel, scenario(LATE, ttl=600)),
        ("status-honest", keep_silent_about_the_store, scenario(*CUT_OFF, ttl=60)),
        ("no-busy-loop", ask_again_at_once, scenario(*CUT_OFF)),
        ("no-busy-loop", look_again_at_once, scenario()),
        ("no-busy-loop", run_in_circles, scenario()),
        ("no-crash", stumble, scenario()),
        ("all-well", bear_grudges, scenario(*CUT_OFF)),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_a_saboteur_is_found_out(
    invariant: str, sabotage: Sabotage, given: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert breach(given) == "", "without the sabotage all is well"
    sabotage(monkeypatch)
    assert breach(given) == invariant
