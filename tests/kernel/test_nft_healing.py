"""The reconciler over the real nft: whatever is done to our table, it is made right again, with little ado."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio

from overlayd.core.decide import Decision, Target
from overlayd.core.kernel.driver import Driver, Scope
from overlayd.core.kernel.items import KernelState
from overlayd.core.network.addresses import Subnet
from overlayd.core.network.desired import DesiredState
from overlayd.core.report import Report
from overlayd.host.nft import program
from overlayd.host.nft.driver import open_nft
from overlayd.node.reconciler import Reconciler
from support.netns import netns
from support.nft import FOREIGN, firewall, nft, require_nft, senders
from support.overlay import subnet

PEERS = (2, 3)
WISH = DesiredState(firewall(), {Subnet((subnet(n),)): KernelState.of(senders(n)) for n in PEERS})


class Passes:
    """The reports of the reconciler, and their number."""

    def __init__(self) -> None:
        self.count = 0
        self.last: Report | None = None

    async def publish(self, report: Report) -> None:
        self.count += 1
        self.last = report


@asynccontextmanager
async def kept(driver: Driver, desired: DesiredState = WISH) -> AsyncGenerator[Passes]:
    """A reconciler at work, which has reached the desired state."""
    passes = Passes()

    async def decide() -> Decision:
        return Decision(target=Target(desired, Scope(), sweep=True))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(Reconciler(driver, decide, passes.publish, trio.current_time).run)
        await reached(driver, desired)
        yield passes
        nursery.cancel_scope.cancel()


async def reached(driver: Driver, desired: DesiredState = WISH) -> None:
    actual = KernelState()
    with trio.move_on_after(20):
        while (actual := await driver.observe(Scope())) != desired.kernel:  # noqa: ASYNC110
            await trio.sleep(0.02)
    assert str(actual) == str(desired.kernel)


async def quiet(passes: Passes) -> None:
    """Until there was no pass for a while."""
    before = -1
    while before != passes.count:
        before = passes.count
        await trio.sleep(0.3)


@pytest.mark.parametrize(
    "fault",
    [
        "flush ruleset",
        "delete table inet overlayd",
        "flush set inet overlayd senders_24",
        "insert rule inet overlayd source_check accept",
        "add chain inet overlayd foo; add rule inet overlayd foo drop",
    ],
)
async def test_a_fault_is_healed(fault: str) -> None:
    require_nft()
    with netns() as name, open_nft(name) as driver:
        async with kept(driver):
            nft(name, fault)
            assert await driver.observe(Scope()) != WISH.kernel
            await reached(driver)


async def test_a_firewall_that_is_reloaded_over_and_over_is_borne_with_patience() -> None:
    """What the reload of a firewall does: all is flushed, and its own rules come back in the same transaction."""
    require_nft()
    reloads = 3
    with netns() as name, open_nft(name) as driver:
        script = f"flush ruleset\n{FOREIGN}"
        nft(name, "-f", "-", script=script)
        others = nft(name, "list", "ruleset")
        async with kept(driver) as passes:
            await quiet(passes)
            for _ in range(reloads):
                before = passes.count
                nft(name, "-f", "-", script=script)
                await reached(driver)
                await quiet(passes)
                assert passes.count - before <= 4  # the fault, and the echo of what healed it
            ours = nft(name, "list", "table", "inet", "overlayd")
            assert nft(name, "list", "ruleset").replace(ours, "").strip() == others.strip()
            assert passes.last is not None
            assert not passes.last.retries.failed_operations


async def test_an_nft_that_lists_otherwise_than_it_writes_is_not_written_to_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Such as one of another version.  It is a refusal, retried with backoff, and the peers are served."""
    require_nft()
    run = program.run_nft

    async def run_other(namespace: str | None, *arguments: str, script: str = "") -> program.Ran:
        ran = await run(namespace, *arguments, script=script)
        return program.Ran(
            ran.out.replace('"return": null', '"goto": {"target": "foo"}'), ran.refusals, ran.trouble
        )

    monkeypatch.setattr("overlayd.host.nft.driver.run_nft", run_other)
    with netns() as name, open_nft(name) as driver:
        passes = Passes()

        async def decide() -> Decision:
            return Decision(target=Target(WISH, Scope(), sweep=True))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(Reconciler(driver, decide, passes.publish, trio.current_time).run)
            with trio.fail_after(20):
                while passes.last is None or not passes.last.retries.failed_operations:  # noqa: ASYNC110
                    await trio.sleep(0.02)
            await quiet(passes)
            [failed_operation] = passes.last.retries.failed_operations.values()
            assert "nft lists it otherwise" in failed_operation.failure.reason
            assert passes.count < 10
            assert passes.last.is_reached(KernelState.of(senders(2)))
            nursery.cancel_scope.cancel()


async def test_a_daemon_that_comes_back_sweeps_what_its_former_life_left() -> None:
    require_nft()
    with netns() as name:
        with open_nft(name) as former:
            async with kept(former):
                pass
        nft(name, "add element inet overlayd nodes { 174260233 . 174260233 }")
        with open_nft(name) as other:  # it knows nothing of its former life
            async with kept(other):
                pass
            async with kept(other, DesiredState(KernelState())):
                assert nft(name, "list", "ruleset") == ""
