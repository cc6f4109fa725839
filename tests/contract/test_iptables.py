"""What every driver promises of our rules in iptables: that of the real one, in both variants, and the fake."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from overlayd.core.firewall.iptables import ForwardRules, Variant, forward_rules
from overlayd.core.kernel.driver import Driver, Operation, Scope, Verb
from overlayd.core.kernel.items import KernelState
from overlayd.core.kernel.plan import diff
from overlayd.host.firewall_conflicts import open_foreign_firewall_reader
from overlayd.testing.kernel import FakeKernel
from support.iptables import FOREIGN, VARIANTS, iptables, listed, require_iptables, restore, rules
from support.netns import netns
from support.overlay import adding, removing, subnet

SCOPE = Scope()


@dataclass
class IptablesWorld:
    driver: Driver
    variant: Variant
    node: str = ""

    def put_rule_in_front(self) -> None:
        if isinstance(self.driver, FakeKernel):
            [before] = self.driver.find(ForwardRules)
            self.driver.put(ForwardRules(self.variant, before.rules, "behind a rule of somebody else"))
        else:
            iptables(self.node, self.variant, "-I FORWARD -i eth0 -j DROP")


@pytest.fixture(autouse=True)
def _always_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would take seconds until a change in iptables-legacy is noticed."""
    monkeypatch.setattr("overlayd.host.iptables.driver.LOOK_EVERY", 0.0)


@contextmanager
def real(variant: Variant) -> Iterator[IptablesWorld]:
    require_iptables(variant)
    with netns() as name, open_foreign_firewall_reader(name) as (driver, _):
        restore(name, variant, *FOREIGN)
        yield IptablesWorld(driver, variant, name)


@pytest.fixture(params=["fake", *VARIANTS], ids=str)
async def world(request: pytest.FixtureRequest) -> AsyncIterator[IptablesWorld]:
    if request.param == "fake":
        yield IptablesWorld(FakeKernel(), Variant.NFT)
        return
    with real(request.param) as world:
        yield world


async def reach(world: IptablesWorld, desired: KernelState) -> None:
    """As the reconciler does, in one round."""
    plan = diff(desired, await world.driver.observe(SCOPE), sweep=True)
    assert len(plan) == 1
    assert await world.driver.apply(list(plan)) == (None,)
    assert await world.driver.observe(SCOPE) == desired


async def test_nothing_is_ours_that_we_did_not_put_there(world: IptablesWorld) -> None:
    assert await world.driver.observe(SCOPE) == KernelState()


async def test_what_was_added_is_observed_until_it_is_removed(world: IptablesWorld) -> None:
    desired = KernelState.of([rules(world.variant)])
    assert await world.driver.apply(adding(desired)) == (None,)
    assert await world.driver.observe(SCOPE) == desired
    assert await world.driver.apply(adding(desired)) == (None,)
    assert await world.driver.observe(SCOPE) == desired
    for _ in range(2):
        assert await world.driver.apply(removing(desired)) == (None,)
        assert await world.driver.observe(SCOPE) == KernelState()


async def test_another_network_takes_the_place_of_the_former(world: IptablesWorld) -> None:
    await reach(world, KernelState.of([forward_rules(world.variant, subnet(7))]))
    await reach(world, KernelState.of([rules(world.variant)]))


async def test_rules_that_are_no_longer_first_become_so_again(world: IptablesWorld) -> None:
    desired = KernelState.of([rules(world.variant)])
    await reach(world, desired)
    world.put_rule_in_front()
    assert await world.driver.observe(SCOPE) != desired
    await reach(world, desired)


async def test_an_old_observation_does_no_harm(world: IptablesWorld) -> None:
    """Between a look and a change somebody else may have been there."""
    desired = KernelState.of([rules(world.variant)])
    await reach(world, desired)
    world.put_rule_in_front()
    former = forward_rules(world.variant, subnet(7))
    [outcome] = await world.driver.apply([Operation(Verb.CHANGE, rules(world.variant), former)])
    assert outcome is None
    assert await world.driver.observe(SCOPE) == desired


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
async def test_all_of_others_stays_byte_for_byte(variant: Variant) -> None:
    with real(variant) as world:
        before = listed(world.node, variant)
        assert [line for line in before if line.startswith("-A")] == [
            line for line in FOREIGN if line.startswith("-A")
        ]
        await reach(world, KernelState.of([rules(variant)]))
        ours = [f"-A FORWARD {rule}" for rule in rules(variant).rules]
        place = before.index("-A FORWARD -j DOCKER-USER")
        assert listed(world.node, variant) == [*before[:place], *ours, *before[place:]]
        await reach(world, KernelState())
        assert listed(world.node, variant) == before


async def test_looking_makes_no_table() -> None:
    for variant in VARIANTS:
        require_iptables(variant)
    with netns() as name, open_foreign_firewall_reader(name) as (driver, others):
        assert await driver.observe(SCOPE) == KernelState()
        seen = await others.look()
        assert (seen.variants, seen.problems) == (frozenset(), ())
        assert await driver.apply(removing([rules(variant) for variant in VARIANTS])) == (None, None)
        assert all(listed(name, variant) == [] for variant in VARIANTS)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
async def test_a_variant_is_in_use_by_what_others_have_in_it(variant: Variant) -> None:
    require_iptables(variant)
    with netns() as name:

        async def in_use() -> bool:
            with open_foreign_firewall_reader(name) as (_, others):
                return (await others.look()).variants == {variant}

        restore(name, variant, *(f"-A FORWARD {rule}" for rule in rules(variant).rules))
        assert not await in_use()  # by ours alone it isn't
        iptables(name, variant, "-P FORWARD DROP")
        assert await in_use()
        iptables(name, variant, "-P FORWARD ACCEPT")
        assert not await in_use()
        iptables(name, variant, "-A INPUT -i lo -j ACCEPT")
        assert await in_use()


async def test_a_program_that_fails_is_told_of_until_it_works_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with real(Variant.NFT) as world, open_foreign_firewall_reader(world.node) as (_, others):

        async def fail(netns: str | None, program: str, *arguments: str, script: str = "") -> None:
            raise OSError(110, "iptables-nft-save did not end within 30 s")

        with monkeypatch.context() as patched:
            patched.setattr("overlayd.host.iptables.driver.run_program", fail)
            seen = await others.look()
            assert seen.variants == frozenset()
            assert [problem.code for problem in seen.problems] == ["iptables-unreadable"]
            [refused] = await world.driver.apply(adding([rules(Variant.NFT)]))
            assert refused is not None
            assert "did not end" in refused.reason
        assert (await others.look()).variants == {Variant.NFT}
        assert (await others.look()).problems == ()
