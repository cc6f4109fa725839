"""The archive for a bug report: whole whatever fails, and without secrets."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path

import pytest
import trio
import trio.testing

from overlayd.cli import CommandError, main
from overlayd.cli.bundle import PATIENCE, SIZE_LIMIT, Source, archive, collect


async def test_what_can_t_be_asked_leaves_its_reason_and_delays_nobody(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def silent() -> str:
        await trio.sleep_forever()
        raise AssertionError

    async def refused() -> str:
        raise CommandError("there is no such thing")

    async def unreadable() -> str:
        raise PermissionError(13, "Permission denied")

    async def long() -> str:
        return "old\n" + "new\n" * SIZE_LIMIT

    async def telling() -> str:
        return "password=hunter2\n"

    sources = [Source(one.__name__, one) for one in (silent, refused, unreadable, long, telling)]
    texts = await collect([*sources, Source("another-silent", silent)])
    assert trio.current_time() <= 2 * PATIENCE
    assert list(texts) == ["silent", "refused", "unreadable", "long", "telling", "another-silent"]
    assert "no answer within 15 s" in texts["silent"]
    assert "there is no such thing" in texts["refused"]
    assert "Permission denied" in texts["unreadable"]
    assert (len(texts["long"]), texts["long"][:4]) == (SIZE_LIMIT, "new\n")
    assert "hunter2" not in texts["telling"]


def test_the_archive_has_one_directory_of_private_files() -> None:
    with tarfile.open(fileobj=io.BytesIO(archive("stem", {"a": "1", "b/c": "\udcff"})), mode="r:gz") as tar:
        assert {entry.name: entry.mode for entry in tar} == {"stem/a": 0o600, "stem/b/c": 0o600}
        content = tar.extractfile("stem/b/c")
        assert content is not None
        assert content.read() == b"\xff"


def test_a_host_without_anything_gives_a_bundle_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OVERLAYD_SECRET_TOKEN", "hunter2")
    monkeypatch.setenv("PATH", str(tmp_path))  # no program is found
    output = tmp_path / "bundle.tar.gz"
    nowhere = ["--run-dir", str(tmp_path / "run"), "--state-dir", str(tmp_path / "state")]
    nowhere += ["--etcd-endpoints", "http://127.0.0.1:1", "--subnet-file", str(tmp_path / "subnet.env")]
    assert main(["bundle", "--output", str(output), *nowhere]) == 0
    assert stat.S_IMODE(os.stat(output).st_mode) == 0o600
    with tarfile.open(output) as tar:
        texts = {}
        for entry in tar:
            file = tar.extractfile(entry)
            assert file is not None
            texts[entry.name.partition("/")[2]] = file.read().decode()
    assert "no daemon runs here" in texts["status.json"]
    assert "refuses the connection" in texts["store.json"]
    assert "there is no ip on this host" in texts["kernel/routes"]
    assert texts["kernel/sysctl/net.ipv4.ip_forward"].strip() in ("0", "1")
    assert "hunter2" not in "".join(texts.values())
    assert "Look through it" in capsys.readouterr().err

    assert main(["bundle", "--output", str(output), *nowhere]) == 1
    assert "exists already: give another file" in capsys.readouterr().err
