"""What a userspace datapath was asked for outlives the daemon, and nothing in the file can harm the next one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from overlayd.core.kernel.datapath import Datapath, Encap
from overlayd.core.kernel.driver import ALL, Driver, Failure, Keys, OnChange, Operation, Scope, Verb
from overlayd.core.kernel.items import Item, KernelState
from overlayd.host.persistent_driver import PersistentDriver, format_items, parse_items

DATAPATH = Datapath("ovl.udp", IPv4Address("10.99.0.1"), 8285, (IPv4Network("10.244.1.0/24"),))


class Recorder(Driver):
    """A datapath that does what it is told, unless it is told to fail."""

    kinds = frozenset({Datapath, Encap})

    def __init__(self, failure: Failure | None = None) -> None:
        self.items: dict[object, Item] = {}
        self._failure = failure

    async def observe(self, scope: Scope, keys: Keys = ALL) -> KernelState:
        return KernelState.of(self.items.values())

    async def apply(self, operations: Sequence[Operation]) -> tuple[Failure | None, ...]:
        if self._failure is None:
            for operation in operations:
                if operation.verb is Verb.REMOVE:
                    self.items.pop(operation.item.key, None)
                else:
                    self.items[operation.item.key] = operation.item
        return (self._failure,) * len(operations)

    def watch(self, on_change: OnChange) -> AbstractAsyncContextManager[None]:
        raise NotImplementedError


def encap(number: int) -> Encap:
    return Encap("ovl.udp", IPv4Network(f"10.244.{number}.0/24"), IPv4Address(f"10.99.0.{number}"), 8285)


states = st.sets(st.integers(2, 250)).map(lambda peers: KernelState.of([DATAPATH, *map(encap, peers)]))


@given(states)
def test_items_are_read_as_they_were_written(state: KernelState) -> None:
    assert parse_items(format_items(state), Recorder.kinds) == state


@given(st.lists(states, min_size=1, max_size=5))
def test_the_next_life_begins_where_the_last_one_ended(
    tmp_path_factory: pytest.TempPathFactory, desired_states: list[KernelState]
) -> None:
    path = tmp_path_factory.mktemp("run") / "ovl.udp.json"

    async def live() -> None:
        first = PersistentDriver(Recorder(), path)
        for desired in desired_states:
            actual = await first.observe(Scope())
            gone = [Operation(Verb.REMOVE, item) for item in actual.items - desired.items]
            await first.apply([*gone, *(Operation(Verb.ADD, item) for item in desired.items)])
        inner = Recorder()
        second = PersistentDriver(inner, path)
        await second.resume()
        assert await second.observe(Scope()) == desired_states[-1]
        await second.apply([Operation(Verb.REMOVE, item) for item in desired_states[-1].items])
        assert not path.exists()

    trio.run(live)


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", '[{"link":"ovl.udp"}]', '[{"link":"x","port":"y","prefix":"z"}]', "null"]
)
async def test_a_file_of_garbage_is_no_worse_than_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "ovl.udp.json"
    path.write_text(text)
    inner = Recorder()
    remembered = PersistentDriver(inner, path)
    await remembered.resume()
    assert not inner.items
    await remembered.apply([Operation(Verb.ADD, DATAPATH)])
    assert parse_items(path.read_text(), Recorder.kinds) == KernelState.of([DATAPATH])


async def test_where_the_device_is_gone_nothing_is_resumed_and_the_daemon_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "ovl.udp.json"
    path.write_text(format_items(KernelState.of([DATAPATH, encap(2)])))
    remembered = PersistentDriver(Recorder(Failure(19, "there is no ovl.udp")), path)
    await remembered.resume()
    assert not (await remembered.observe(Scope())).items


async def test_a_directory_that_can_t_be_written_stops_nothing(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    remembered = PersistentDriver(Recorder(), blocked / "ovl.udp.json")
    await remembered.resume()
    assert await remembered.apply([Operation(Verb.ADD, DATAPATH)]) == (None,)
