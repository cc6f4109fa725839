"""The reconciler over the real iptables, in both variants: whatever others do to FORWARD, our rules are first in
it again, and nothing of theirs is changed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio

from overlayd.core.decide import Decision, Target
from overlayd.core.firewall.iptables import Variant, forward_rules
from overlayd.core.kernel.driver import Scope
from overlayd.core.kernel.items import KernelState
from overlayd.core.network.desired import DesiredState
from overlayd.core.report import Report
from overlayd.host.firewall_conflicts import open_foreign_firewall_reader
from overlayd.node.reconciler import Reconciler
from overlayd.testing.changes import open_changes
from support.iptables import FOREIGN, NETWORK, VARIANTS, iptables, listed, require_iptables, restore, rules
from support.netns import netns

CHAINS = ("INPUT", "FORWARD", "OUTPUT")
THEIRS = [line for line in FOREIGN if line.startswith("-A FORWARD")]


def with_rules(variants: Iterable[Variant]) -> DesiredState:
    return DesiredState(KernelState.of(forward_rules(variant, NETWORK) for variant in variants))


@pytest.fixture(autouse=True)
def _looking_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing tells of changes in iptables-legacy."""
    monkeypatch.setattr("overlayd.host.iptables.driver.LOOK_EVERY", 0.3)


@dataclass
class Kept:
    """A node where FORWARD is looked after, as the daemon does it."""

    node: str
    variant: Variant
    passes: int = 0
    last: Report | None = None

    def now(self) -> list[str]:
        return listed(self.node, self.variant)

    async def wait_first(self, *others: str) -> None:
        """Until FORWARD has our rules and then these."""
        wanted = [*(f"-A FORWARD {rule}" for rule in rules(self.variant).rules), *others]
        found: list[str] = []
        with trio.move_on_after(20):
            while (  # noqa: ASYNC110
                found := [rule for rule in self.now() if rule.startswith("-A FORWARD")]
            ) != wanted:
                await trio.sleep(0.05)
        assert found == wanted


@asynccontextmanager
async def kept(variant: Variant, *lines: str) -> AsyncGenerator[Kept]:
    require_iptables(variant)
    with netns() as name, open_foreign_firewall_reader(name) as (driver, others):
        state = Kept(name, variant)
        restore(name, variant, *lines)

        async def decide() -> Decision:
            seen = await others.look()
            return Decision(target=Target(with_rules(seen.variants), Scope(), sweep=True))

        async def publish(report: Report) -> None:
            state.passes += 1
            state.last = report

        async with trio.open_nursery() as nursery:
            nursery.start_soon(Reconciler(driver, decide, publish, trio.current_time).run)
            yield state
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
async def test_whatever_is_done_to_it_is_mended_and_nothing_else_is_touched(variant: Variant) -> None:
    async with kept(variant, *FOREIGN) as state:
        await state.wait_first(*THEIRS)
        whole = state.now()
        iptables(state.node, variant, "-D FORWARD 1")
        await state.wait_first(*THEIRS)
        iptables(state.node, variant, "-I FORWARD 2 -i eth3 -j DROP")
        await state.wait_first("-A FORWARD -i eth3 -j DROP", *THEIRS)
        iptables(state.node, variant, "-D FORWARD -i eth3 -j DROP")
        assert state.now() == whole
        iptables(state.node, variant, "-F FORWARD")
        await state.wait_first()
        assert [line for line in state.now() if "FORWARD" not in line] == [
            line for line in whole if "FORWARD" not in line
        ]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
async def test_they_come_and_go_with_the_use_that_others_make_of_it(variant: Variant) -> None:
    async with kept(variant) as state:
        before = state.now()
        iptables(state.node, variant, "-P FORWARD DROP")
        await state.wait_first()
        iptables(state.node, variant, "-P FORWARD ACCEPT")
        with trio.fail_after(20):
            while any("overlayd" in line for line in state.now()):  # noqa: ASYNC110
                await trio.sleep(0.05)
        assert set(state.now()) - set(before) <= {"*filter", "COMMIT", *(f":{c} ACCEPT" for c in CHAINS)}


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
async def test_a_reload_every_second_is_borne_with_patience(variant: Variant) -> None:
    """What reloads a firewall puts its own rules in place in one step, and ours are gone."""
    async with kept(variant, *FOREIGN) as state:
        await state.wait_first(*THEIRS)
        before = state.passes
        reloads = 2
        for _ in range(reloads):
            restore(state.node, variant, *FOREIGN)
            await trio.sleep(1)
        await state.wait_first(*THEIRS)
        assert state.passes - before <= 4 * reloads
        assert state.last is not None
        assert not state.last.retries.failed_operations


async def test_what_else_happens_does_not_keep_it_from_looking() -> None:
    """Whoever waits for several things begins again whenever one of them came."""
    require_iptables(Variant.LEGACY)
    with netns() as name, open_foreign_firewall_reader(name) as (driver, _):
        restore(name, Variant.LEGACY, *FOREIGN)
        async with open_changes(driver) as hints:
            noticed = False
            with trio.fail_after(20):
                while not noticed:
                    with trio.move_on_after(0.1):
                        await hints.wait()
                        noticed = True
