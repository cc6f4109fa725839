"""The first config of a cluster: written once, by one of many, and never over another."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from overlayd.cli.run import read_first_config
from overlayd.core.leases.store import CONFIG
from overlayd.core.network.first_config import FirstConfig
from overlayd.core.status.status import Verdict
from overlayd.node.config_bootstrap import RETRY
from overlayd.testing.simulation.host import SimulatedHost
from overlayd.testing.store import SimulatedStore
from support.cluster import VXLAN, codes, delete, write_config

FIRST = FirstConfig("/etc/overlayd/network.json", VXLAN)


async def test_of_many_nodes_one_founds_and_all_follow(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    store = SimulatedStore(lambda: None)
    async with trio.open_nursery() as nursery:
        nodes = [SimulatedHost(n, store, tmp_path, nursery, first_config=FIRST) for n in range(1, 9)]
        for node in nodes:
            await nursery.start(node.run)
        await trio.sleep(30)
        record = (await store.snapshot()).config
        assert record is not None
        assert (record.value, record.create_revision) == (VXLAN, record.mod_revision)
        assert [node.answer().verdict for node in nodes] == [Verdict.HEALTHY] * 8
        nursery.cancel_scope.cancel()


async def test_a_config_that_stands_is_never_overwritten(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    theirs = b'{"Network":"10.245.0.0/16","Backend":{"Type":"vxlan"}}'
    store = SimulatedStore(lambda: None)
    await write_config(store, theirs)
    async with trio.open_nursery() as nursery:
        node = SimulatedHost(1, store, tmp_path, nursery, first_config=FIRST)
        await nursery.start(node.run)
        await trio.sleep(10 * RETRY)
        record = (await store.snapshot()).config
        assert record is not None
        assert record.value == theirs
        assert codes(node) == {"config-differs"}
        assert node.answer().status.lease is not None
        await write_config(store, VXLAN.replace(b":", b" : "))  # says the same in other bytes
        await trio.sleep(60)
        assert codes(node) == set()
        nursery.cancel_scope.cancel()


async def test_a_config_that_was_deleted_is_founded_again(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    store = SimulatedStore(lambda: None)
    async with trio.open_nursery() as nursery:
        node = SimulatedHost(1, store, tmp_path, nursery, first_config=FIRST)
        await nursery.start(node.run)
        for _ in range(3):
            await trio.sleep(30)
            assert (await store.snapshot()).config is not None
            await delete(store, CONFIG)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        (b"{", "JSON"),
        (b'{"Network":"10.244.0.0/16","Backend":{"Type":"pigeon"}}', "pigeon"),
    ],
)
def test_a_file_that_wont_do_is_named(tmp_path: Path, content: bytes | None, said: str) -> None:
    file = tmp_path / "network.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=said) as refused:
        read_first_config(str(file))
    assert str(file) in str(refused.value)
