"""`overlayd config`: what it prints, what it writes, and what it refuses to write."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from overlayd.cli import config as verb
from overlayd.cli import main
from overlayd.core.leases.store import (
    CONFIG,
    Committed,
    Put,
    Record,
    Refused,
    Snapshot,
    Store,
    StoreError,
    StoreRefused,
    Transaction,
)
from overlayd.store.memory import MemoryStore

GOOD = '{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}'
OTHER = '{"Network": "10.99.0.0/16", "Backend": {"Type": "host-gw"}}'
LEASE = b'{"PublicIP":"10.99.0.1","PublicIPv6":null,"Overlayd":{"NodeID":"1","NodeName":"node1"}}'


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    """The store that the command's options name."""
    store = MemoryStore()
    use(monkeypatch, store)
    return store


def use(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    @asynccontextmanager
    async def open_store(args: object) -> AsyncGenerator[Store]:
        yield store

    monkeypatch.setattr(verb, "open_store", open_store)


def put(store: MemoryStore, name: str, value: bytes) -> None:
    trio.run(store.commit, Transaction((), (Put(name, value, lease_id=0),)))


def stored(store: MemoryStore) -> Record | None:
    return trio.run(store.snapshot).config


def config_file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "config.json"
    path.write_text(text)
    return str(path)


def test_check_prints_what_a_config_means(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", config_file(tmp_path, GOOD.replace('"vxlan"', '"vxlan", "Prot": 1'))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "network   10.244.0.0/16, a /24 for each node"
    assert lines[1] == "subnets   255: 10.244.1.0/24 to 10.244.255.0/24"
    assert lines[2].startswith("backend   vxlan (VNI 1, ")
    assert lines[3].startswith(
        "overhead  50 bytes per packet over an IPv4 underlay (MTU 1500 leaves 1450), 70 over IPv6"
    )
    assert lines[4].startswith("warning   Backend.Prot is unknown and has no effect: vxlan reads ")


def test_check_reads_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(GOOD.encode())))
    assert main(["config", "check", "--json", "-"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["subnets"] == 255
    assert facts["ranges"][0] == {
        "network": "10.244.0.0/16",
        "subnet_len": 24,
        "first": "10.244.1.0",
        "last": "10.244.255.0",
        "subnets": 255,
    }
    assert facts["backend"]["type"] == "vxlan"
    assert facts["backend"]["overhead"] == {"ipv4": 50, "ipv6": 70}


@pytest.mark.parametrize("action", ["check", "set"])
def test_a_wrong_config_is_refused_with_every_fault(
    action: str, tmp_path: Path, store: MemoryStore, capsys: pytest.CaptureFixture[str]
) -> None:
    file = config_file(tmp_path, '{"Network": "10.244.0.0/16", "SubnetLen": 31, "backend": {"type": 5}}')
    assert main(["config", action, file]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        f"overlayd config: {file} is not a valid network config:",
        "  SubnetLen 31: leaves fewer than four addresses per subnet; use a length from 18 to 30",
        '  backend.type 5: is no name of a backend; give "vxlan", for one',
    ]
    assert stored(store) is None


def test_faults_are_facts_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", "--json", config_file(tmp_path, "{}")]) == 1
    assert [fault["key"] for fault in json.loads(capsys.readouterr().out)["faults"]] == ["Network"]


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "is empty"), (b"\xff", "is not UTF-8"), (b" " * 1_000_000, "is larger than 65536 bytes")],
)
def test_a_file_of_garbage_is_refused(
    content: bytes, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "garbage").write_bytes(content)
    assert main(["config", "check", str(tmp_path / "garbage")]) == 1
    assert said in capsys.readouterr().err


def test_a_file_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", str(tmp_path / "none")]) == 1
    assert f"can't read {tmp_path / 'none'}: No such file or directory" in capsys.readouterr().err


def test_set_stores_and_show_shows(tmp_path: Path, store: MemoryStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "set", config_file(tmp_path, f"{GOOD}\n")]) == 0
    assert capsys.readouterr().out.startswith("stored at revision 2\n")
    record = stored(store)
    assert record is not None
    assert (record.value, record.lease_id) == (GOOD.encode(), 0)
    assert main(["config", "show"]) == 0
    assert capsys.readouterr().out.startswith(f"{GOOD}\n\nnetwork   10.244.0.0/16")


def test_setting_the_same_again_writes_nothing(tmp_path: Path, store: MemoryStore) -> None:
    file = config_file(tmp_path, GOOD)
    assert main(["config", "set", file]) == 0
    before = stored(store)
    assert main(["config", "set", file]) == 0
    assert stored(store) == before


def test_show_says_how_to_set_one(store: MemoryStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--etcd-prefix", "/some/where"]) == 1
    error = capsys.readouterr().err
    assert "there is no network config at /some/where/config" in error
    assert "overlayd config set" in error


def test_show_prints_a_broken_one_as_it_stands(store: MemoryStore, capsys: pytest.CaptureFixture[str]) -> None:
    put(store, CONFIG, b'{"Network": "10.244.0.0/16"\x1b[2J\xff')
    assert main(["config", "show"]) == 1
    captured = capsys.readouterr()
    assert captured.out == '{"Network": "10.244.0.0/16"\\x1b[2J\\xff\n\n'
    assert "the stored value is not a valid network config" in captured.err


def test_set_does_not_take_subnets_away_unless_forced(
    tmp_path: Path, store: MemoryStore, capsys: pytest.CaptureFixture[str]
) -> None:
    put(store, CONFIG, GOOD.encode())
    for number in range(1, 8):
        put(store, f"subnets/10.244.{number}.0-24", LEASE)
    put(store, "subnets/10.99.5.0-24", LEASE)
    file = config_file(tmp_path, OTHER)
    assert main(["config", "set", file]) == 1
    error = capsys.readouterr().err
    assert "7 nodes lose their subnets by this config: 10.244.1.0/24 of node1, " in error
    assert "10.244.5.0/24 of node1 and 2 more; nothing was written.  Add --force" in error
    record = stored(store)
    assert record is not None
    assert record.value == GOOD.encode()

    assert main(["config", "set", "--force", "--json", file]) == 0
    assert len(json.loads(capsys.readouterr().out)["evicted"]) == 7
    record = stored(store)
    assert record is not None
    assert record.value == OTHER.encode()


class Unreachable(MemoryStore):
    async def snapshot(self) -> Snapshot:
        raise StoreError("nobody listens there")


class Forgetful(MemoryStore):
    """Writes, but the answer gets lost."""

    async def commit(self, transaction: Transaction) -> Committed | Refused:
        await super().commit(transaction)
        raise StoreError("no answer")


class Guarded(MemoryStore):
    async def commit(self, transaction: Transaction) -> Committed | Refused:
        raise StoreRefused("permission denied")


class Contended(MemoryStore):
    """Somebody else sets the config just before we do."""

    async def commit(self, transaction: Transaction) -> Committed | Refused:
        await super().commit(Transaction((), (Put(CONFIG, OTHER.encode(), lease_id=0),)))
        return await super().commit(transaction)


@pytest.mark.parametrize(
    ("kind", "status", "said"),
    [
        (Unreachable, 2, "nobody listens there"),
        (Forgetful, 2, "no answer; the config may have been written: `overlayd config show` tells"),
        (Guarded, 2, "permission denied; nothing was written"),
        (Contended, 1, "the config has changed since it was read; nothing was written"),
    ],
)
def test_a_store_that_does_not_write_is_told_apart(
    kind: type[MemoryStore],
    status: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    use(monkeypatch, kind())
    assert main(["config", "set", config_file(tmp_path, GOOD)]) == status
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""


def test_the_change_of_another_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Contended()
    use(monkeypatch, store)
    main(["config", "set", config_file(tmp_path, GOOD)])
    record = stored(store)
    assert record is not None
    assert record.value == OTHER.encode()
