"""What every driver promises of our nftables table: that of the real nft, in a namespace of its own, and the
fake one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network
from typing import Protocol

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from overlayd.core.firewall.nftables import COUNTERS, NftItem, NftTable, Sender
from overlayd.core.firewall.policy import masquerade, source_check
from overlayd.core.kernel.driver import Driver, Operation, Scope, Verb
from overlayd.core.kernel.items import KernelState
from overlayd.core.kernel.plan import diff
from overlayd.host.nft.driver import open_nft
from overlayd.host.nft.probe import find_obstacle
from overlayd.host.nft.script import FEW
from overlayd.testing.changes import open_changes
from overlayd.testing.kernel import FakeKernel
from support.netns import netns
from support.nft import FOREIGN, NETWORK, TABLE, firewall, nft, require_nft, senders
from support.overlay import adding, install, removing, subnet

SCOPE = Scope()
WIDE = Sender(IPv4Address("10.99.0.2"), IPv4Network("10.60.0.0/17"))
"""A prefix of another length than the table's."""


def others(count: int) -> KernelState:
    """So many senders with prefixes of another length than the table's."""
    return KernelState.of(
        Sender(IPv4Address(f"10.99.1.{n}"), IPv4Network(f"10.61.{n}.0/25")) for n in range(count)
    )


class NftWorld(Protocol):
    @property
    def driver(self) -> Driver: ...

    def flush(self) -> None:
        """As a firewall's reload does."""

    def make_odd(self) -> None:
        """Put something into our table that is none of ours."""

    def count(self, counter: str) -> int: ...

    def set_counter(self, counter: str, packets: int) -> None: ...


class FakeNftWorld:
    def __init__(self) -> None:
        self.driver = FakeKernel()
        self.flush = self.driver.flush_nft

    def make_odd(self) -> None:
        self.driver.put(NftTable(24, "holds chain foo"))

    def count(self, counter: str) -> int:
        return self.driver.nft.counters[counter]

    def set_counter(self, counter: str, packets: int) -> None:
        self.driver.nft.counters[counter] = packets


class RealNftWorld:
    def __init__(self, name: str, driver: Driver) -> None:
        self.netns = name
        self.driver = driver

    def flush(self) -> None:
        nft(self.netns, "flush", "ruleset")

    def make_odd(self) -> None:
        nft(self.netns, "add chain inet overlayd foo")

    def count(self, counter: str) -> int:
        words = nft(self.netns, "list", "counter", "inet", "overlayd", counter).split()
        return int(words[words.index("packets") + 1])

    def set_counter(self, counter: str, packets: int) -> None:
        """Before any chain uses it."""
        define = f"counter inet overlayd {counter}"
        nft(
            self.netns,
            "-f",
            "-",
            script=f"delete {define}\nadd {define} {{ packets {packets} bytes {packets} ; }}",
        )


@contextmanager
def real_world() -> Iterator[RealNftWorld]:
    require_nft()
    with netns() as name, open_nft(name) as driver:
        yield RealNftWorld(name, driver)


@pytest.fixture(params=["fake", "real"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[NftWorld]:
    if request.param == "fake":
        yield FakeNftWorld()
        return
    with real_world() as real:
        yield real


async def observed(driver: Driver) -> KernelState:
    return await driver.observe(SCOPE)


async def done(driver: Driver, *operations: Operation) -> None:
    assert await driver.apply(operations) == (None,) * len(operations)


async def reach(driver: Driver, desired: KernelState) -> int:
    """Carry out the plan, in one go; how many operations it had."""
    plan = diff(desired, await observed(driver), sweep=True)
    for stage in plan.stages:
        await done(driver, *stage)
    assert str(await observed(driver)) == str(desired)
    return len(plan)


async def test_where_there_is_no_table_there_is_nothing(world: NftWorld) -> None:
    assert await observed(world.driver) == KernelState()


async def test_what_is_added_is_observed_just_so_and_adding_again_changes_nothing(world: NftWorld) -> None:
    state = firewall(1, peers=(2, 3))
    await install(world.driver, state)
    await done(world.driver, *adding(state))
    assert await observed(world.driver) == state


async def test_a_peer_goes_alone_and_removing_again_succeeds(world: NftWorld) -> None:
    await install(world.driver, firewall(1, peers=(2, 3)))
    for _ in range(2):
        await done(world.driver, *removing(senders(2)))
        assert await observed(world.driver) == firewall(1, peers=(3,))


async def test_removing_from_a_table_that_is_gone_succeeds_and_makes_none(world: NftWorld) -> None:
    state = firewall(1, peers=(2,))
    await install(world.driver, state)
    world.flush()
    await done(world.driver, *removing(reversed(list(state))))
    assert await observed(world.driver) == KernelState()


async def test_a_chain_changes_in_place(world: NftWorld) -> None:
    await install(world.driver, firewall(1, peers=(2,)))
    chain = source_check(4789, 7, 24, subnet(9))
    await done(world.driver, Operation(Verb.CHANGE, chain, was=source_check(8472, 1, 24, subnet(1))))
    wanted = KernelState.of([TABLE, masquerade(NETWORK, subnet(1)), chain, *senders(2)])
    assert await observed(world.driver) == wanted


async def test_counts_outlive_every_change_but_that_of_the_table(world: NftWorld) -> None:
    await install(world.driver, KernelState.of([TABLE]))
    for number, counter in enumerate(COUNTERS, start=3):
        world.set_counter(counter, number)
    for state in (
        firewall(1, peers=range(2, 2 + FEW)) | others(FEW + 3),
        firewall(1, peers=(2,)) | others(2),  # so many go that the set is replaced
        firewall(1, peers=(2, 3)) | others(4),
        firewall(2, peers=(3,)),
        firewall(2),
    ):
        await reach(world.driver, state)
        assert [world.count(counter) for counter in COUNTERS] == [3, 4, 5]


async def test_many_senders_go_in_one_transaction_and_the_others_stay(world: NftWorld) -> None:
    everybody = range(2, 60)
    await install(world.driver, firewall(1, peers=everybody) | others(50))
    gone = 2 * (len(everybody) - 2) + 50 - 3
    assert await reach(world.driver, firewall(1, peers=(2, 7)) | others(3)) == gone


async def test_prefixes_of_all_lengths_stand_beside_one_another(world: NftWorld) -> None:
    several = KernelState.of(Sender(WIDE.address, IPv4Network(f"10.244.2.0/{n}")) for n in (24, 30))
    state = firewall(1, peers=(2, 3)) | several | KernelState.of([WIDE])
    await reach(world.driver, state)
    assert await reach(world.driver, firewall(1, peers=(2, 3))) == 2


async def test_another_prefix_length_makes_the_table_anew_with_all_that_is_in_it(world: NftWorld) -> None:
    await install(world.driver, firewall(1, peers=(2, 3)))
    table, chain = NftTable(25), source_check(8472, 1, 25, subnet(1))
    state = KernelState.of([table, masquerade(NETWORK, subnet(1)), chain, *senders(2), WIDE])
    await reach(world.driver, state)
    await reach(world.driver, firewall(1, peers=(2, 3)))


async def test_an_odd_table_is_made_anew_by_one_plan(world: NftWorld) -> None:
    state = firewall(1, peers=(2, 3))
    await install(world.driver, state)
    world.make_odd()
    assert "foo" in str(await observed(world.driver))
    await reach(world.driver, state)


async def test_a_table_that_was_flushed_comes_back(world: NftWorld) -> None:
    state = firewall(1, peers=(2, 3))
    await install(world.driver, state)
    world.flush()
    assert await observed(world.driver) == KernelState()
    await reach(world.driver, state)


async def test_a_table_goes_with_all_that_is_in_it(world: NftWorld) -> None:
    await install(world.driver, firewall(1, peers=(2, 3)))
    assert await reach(world.driver, KernelState()) == 1


async def test_a_chain_without_a_table_is_refused(world: NftWorld) -> None:
    [outcome] = await world.driver.apply(adding([masquerade(NETWORK, subnet(1))]))
    assert outcome is not None
    assert await observed(world.driver) == KernelState()


async def test_a_change_is_hinted_at(world: NftWorld) -> None:
    await install(world.driver, firewall(1))
    async with open_changes(world.driver) as hints:
        world.flush()
        with trio.fail_after(10):
            await hints.wait()


# What only the real one can show


async def test_what_nft_refuses_keeps_nothing_else_from_being_done() -> None:
    with real_world() as world:
        await install(world.driver, firewall(1, peers=(2, 3)))
        await done(world.driver, *adding([WIDE]))
        inside = [Sender(WIDE.address, IPv4Network(f"10.60.2.{n}/32")) for n in (5, 6)]  # overlap
        operations = adding([senders(4)[0], inside[0], senders(4)[1], inside[1], *senders(5)])
        outcomes = await world.driver.apply(operations)
        assert [outcome is None for outcome in outcomes] == [True, False, True, False, True, True]
        assert outcomes[1] is not None
        assert outcomes[1].reason.startswith("nft says: ")
        assert outcomes[1].errno != 0
        assert await observed(world.driver) == firewall(1, peers=(2, 3, 4, 5)) | KernelState.of([WIDE])


FAULTS = {
    "a rule more": "add rule inet overlayd source_check ip saddr 192.0.2.1 accept",
    "a rule first": "insert rule inet overlayd source_check accept",
    "a rule for other protocols": "add rule inet overlayd ip_masq ct state new log prefix foo limit rate 3/minute",
    "a rule less": "flush chain inet overlayd ip_masq",
    "a rule with a comment": 'add rule inet overlayd ip_masq counter comment "mine"',
    "a policy": "chain inet overlayd source_check { policy drop ; }",
    "a chain less": "delete chain inet overlayd source_check",
    "an empty set": "flush set inet overlayd senders_24",
    "a prefix in the set of others": "add element inet overlayd others { 5 . 256-511 }",
    "an element with bits behind its prefix": "add element inet overlayd senders_24 { 5 . 257 }",
    "a node in another's name": "add element inet overlayd nodes { 5 . 6 }",
    "senders of another length beside": ("add set inet overlayd senders_25 { typeof @nh,96,32 . @th,336,32 ; }"),
    "an element more": "add element inet overlayd others { 174260290 . 0-4294967295 }",
    "an odd element": "add element inet overlayd others { 174260290 . 5-7 }",
    "a range of senders": "add element inet overlayd others { 174260290-174260292 . 5 }",
    "an element for a while": "add element inet overlayd nodes { 5 . 5 comment foo }",
    "an element less": "delete element inet overlayd nodes { 174260226 . 174260226 }",
    "a set more": "add set inet overlayd more { type ipv4_addr ; }",
    "a counter more": "add counter inet overlayd more",
    "a chain more": "add chain inet overlayd forward { type filter hook forward priority 0 ; policy drop ; }",
    "a dormant table": "add table inet overlayd { flags dormant ; }",
    "another table": "delete table inet overlayd; add table inet overlayd",
    "another set": (
        "delete table inet overlayd; add table inet overlayd;add set inet overlayd senders_24 { type ipv4_addr ; }"
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_what_was_altered_by_hand_is_seen_and_undone_by_one_plan(fault: str) -> None:
    state = firewall(1, peers=(2, 3))
    with real_world() as world:
        await install(world.driver, state)
        nft(world.netns, FAULTS[fault])
        assert await observed(world.driver) != state
        assert await reach(world.driver, state) > 0


async def test_tables_of_others_stay_byte_for_byte() -> None:
    with real_world() as world:
        nft(world.netns, "-f", "-", script=FOREIGN)
        before = nft(world.netns, "-a", "list", "ruleset")
        assert await observed(world.driver) == KernelState()
        for state in (firewall(1, peers=(2, 3)), firewall(2, peers=(3,)), KernelState()):
            await reach(world.driver, state)
            world_of_others = nft(world.netns, "-a", "list", "ruleset")
            if state:
                ours = nft(world.netns, "-a", "list", "table", "inet", "overlayd")
                world_of_others = world_of_others.replace(ours.strip(), "").strip()
            assert world_of_others.strip() == before.strip()
        async with open_changes(world.driver) as hints:
            nft(world.netns, "flush", "table", "inet", "overlayd2")
            with trio.move_on_after(0.5) as scope:
                await hints.wait()
            assert scope.cancelled_caught


@pytest.mark.parametrize("peers", [1_000, pytest.param(10_000, marks=pytest.mark.long)])
async def test_thousands_of_peers(peers: int) -> None:
    def peer(number: int) -> tuple[Sender, Sender]:
        address = IPv4Address(int(IPv4Address("10.99.0.0")) + number)
        prefix = IPv4Network((int(IPv4Address("20.0.0.0")) + (number << 8), 24))
        return Sender(address, prefix), Sender(address, IPv4Network(address))

    everybody = KernelState.of(item for number in range(peers) for item in peer(number))
    half = KernelState.of(item for number in range(peers // 2) for item in peer(number))
    with real_world() as world:
        await reach(world.driver, firewall(1) | everybody)
        assert await reach(world.driver, firewall(1) | half) == peers
        assert await reach(world.driver, KernelState()) == 1


@pytest.mark.parametrize(("port", "vni"), [(8472, 1), (1, (1 << 24) - 1), (65535, 0x800)])
async def test_every_config_is_listed_as_it_was_written(port: int, vni: int) -> None:
    """Whatever the numbers are: nft shortens some, and gives others a name."""
    prefixes = st.tuples(st.integers(0, (1 << 32) - 1), st.integers(8, 30)).map(
        lambda pair: IPv4Network(pair, strict=False)
    )

    @given(prefixes, prefixes)
    @settings(max_examples=10)
    def check(netns: str, network: IPv4Network, own: IPv4Network) -> None:
        table, chain = NftTable(own.prefixlen), source_check(port, vni, own.prefixlen, own)
        items: list[NftItem] = [table, masquerade(network, own), chain]
        items += [Sender(IPv4Address(own.network_address), network), Sender(IPv4Address("1.2.3.4"), own)]

        async def check_one() -> None:
            with open_nft(netns) as driver:
                await reach(driver, KernelState.of(items))

        trio.run(check_one)

    with real_world() as world:
        await trio.to_thread.run_sync(check, world.netns)


async def test_the_probe_finds_no_obstacle_and_leaves_nothing() -> None:
    with real_world() as world:
        for _ in range(2):
            assert await find_obstacle(world.netns) == ""
            await install(world.driver, firewall(1, peers=(2,)))
        assert await observed(world.driver) == firewall(1, peers=(2,))
