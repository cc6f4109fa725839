"""The node's identity: it outlives the daemon, belongs to one daemon at a time, and is never guessed."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from overlayd.host.identity import IdentityError, hold_identity, hold_namespace, load_identity


def test_an_identity_is_made_once_and_kept(tmp_path: Path) -> None:
    state = tmp_path / "deep" / "state"
    assert load_identity(state) is None
    with hold_identity(state, lock_dir=tmp_path / "run") as first:
        assert first.problems == ()
        assert first.mac.is_unicast
    with hold_identity(state, lock_dir=tmp_path / "run") as second:
        assert second == first == load_identity(state)
    with hold_identity(tmp_path / "other", lock_dir=tmp_path / "run") as stranger:
        assert stranger.node_id != first.node_id


def test_two_daemons_in_one_network_namespace_are_one_too_many(tmp_path: Path) -> None:
    with (
        hold_identity(tmp_path / "a", lock_dir=tmp_path / "run"),
        pytest.raises(IdentityError, match="runs in this network namespace"),
    ):
        hold_identity(tmp_path / "b", lock_dir=tmp_path / "run").__enter__()
    with hold_namespace(tmp_path), pytest.raises(IdentityError, match=r"process \d+"):
        hold_namespace(tmp_path).__enter__()


def test_a_state_directory_in_use_elsewhere_is_refused_with_its_user(tmp_path: Path) -> None:
    with hold_identity(tmp_path, lock_dir=tmp_path / "run"):
        pass
    with (tmp_path / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4242\n")
        lock.flush()
        with pytest.raises(IdentityError, match=r"process 4242\) uses .*Stop it, or"):
            hold_identity(tmp_path, lock_dir=tmp_path / "run").__enter__()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"id":"ab","mac":"02:00:00:00:00:01"}',
        '{"id":"a/b","mac":"02:00:00:00:00:01","machine":"","inode":1}',
        '{"id":"ab","mac":"01:00:00:00:00:01","machine":"","inode":1}',
        '{"id":"ab","mac":"x","machine":"","inode":1}',
        '{"id":"ab","mac":"02:00:00:00:00:01","machine":"","inode":1,"more":1}',
        f'{{"id":"{"a" * 65}","mac":"02:00:00:00:00:01","machine":"","inode":1}}',
    ],
)
def test_a_damaged_identity_is_put_aside_and_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "node.json").write_text(text)
    with pytest.raises(IdentityError, match=r"node\.json is damaged"):
        load_identity(tmp_path)
    with hold_identity(tmp_path, lock_dir=tmp_path / "run") as identity:
        [problem] = identity.problems
        assert problem.code == "identity-lost"
        assert "node.json is damaged" in problem.text
    assert (tmp_path / "node.json.damaged").read_text() == text
    with hold_identity(tmp_path, lock_dir=tmp_path / "run") as again:
        assert (again.node_id, again.problems) == (identity.node_id, ())


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("precious")
    state = tmp_path / "state"
    state.mkdir()
    (state / "lock").symlink_to(target)
    with hold_identity(state, lock_dir=tmp_path / "run") as identity:
        assert [problem.code for problem in identity.problems] == ["state-dir-unwritable"]
    assert target.read_text() == "precious"


def test_a_namespace_lock_that_cannot_be_made_keeps_no_daemon_from_starting(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("not a directory")
    with hold_identity(tmp_path / "state", lock_dir=tmp_path / "run") as identity:
        assert identity.problems == ()


def test_a_copied_state_directory_makes_a_new_node_and_says_so(tmp_path: Path) -> None:
    with hold_identity(tmp_path / "first", lock_dir=tmp_path / "run") as first:
        shutil.copytree(tmp_path / "first", tmp_path / "copy")
    assert load_identity(tmp_path / "copy") is None
    with hold_identity(tmp_path / "copy", lock_dir=tmp_path / "run") as copy:
        assert copy.node_id != first.node_id
        assert copy.mac != first.mac
        [problem] = copy.problems
        assert problem.code == "identity-copied"
        assert first.node_id in problem.text
    with hold_identity(tmp_path / "copy", lock_dir=tmp_path / "run") as again:
        assert (again.node_id, again.problems) == (copy.node_id, ())
    with hold_identity(tmp_path / "first", lock_dir=tmp_path / "run") as still:
        assert still == first


def test_the_same_disk_in_another_machine_is_another_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with hold_identity(tmp_path, lock_dir=tmp_path / "run") as first:
        pass
    other = tmp_path / "machine-id"
    other.write_text("0123456789abcdef0123456789abcdef\n")
    monkeypatch.setattr("overlayd.host.identity.MACHINE_ID", other)
    with hold_identity(tmp_path, lock_dir=tmp_path / "run") as second:
        assert second.node_id != first.node_id


@pytest.fixture
def unwritable(tmp_path: Path) -> Path:
    """A path that no one, not even root, can make a directory at."""
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "state"


def test_without_a_writable_place_it_runs_on_and_says_so(unwritable: Path) -> None:
    with hold_identity(unwritable, lock_dir=unwritable) as identity:
        [problem] = identity.problems
        assert problem.code == "state-dir-unwritable"
        assert str(unwritable) in problem.text
        assert "--state-dir" in problem.remedy


def test_an_identity_on_a_read_only_disk_is_used_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with hold_identity(tmp_path, lock_dir=tmp_path / "run") as first:
        pass

    opened = os.open

    def read_only(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return opened(path, flags, mode)

    monkeypatch.setattr("os.open", read_only)
    with hold_identity(tmp_path, lock_dir=tmp_path / "run") as second:
        assert (second.node_id, second.mac) == (first.node_id, first.mac)
        [problem] = second.problems
        assert "Read-only file system" in problem.text


HOLD = """
import sys, time
from pathlib import Path
from overlayd.host.identity import hold_identity
with hold_identity(Path(sys.argv[1]), lock_dir=Path(sys.argv[1]) / "run"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_killed_daemon_leaves_no_lock_behind(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(IdentityError, match=rf"process {holder.pid}\)"):
                hold_identity(tmp_path, lock_dir=tmp_path / "run").__enter__()
        finally:
            holder.kill()
    with hold_identity(tmp_path, lock_dir=tmp_path / "run"):
        pass


def test_a_directory_that_a_reboot_empties_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = os.stat(tmp_path).st_dev
    mounts = tmp_path / "mountinfo"
    monkeypatch.setattr("overlayd.host.identity._MOUNTS", mounts)
    for kind, codes in (("ext4", []), ("tmpfs", ["identity-volatile"])):
        mounts.write_text(
            "21 1 0:99 / /other rw shared:1 - ramfs none rw\n"
            f"22 1 {os.major(device)}:{os.minor(device)} / /x rw,relatime shared:2 - {kind} none rw\n"
        )
        with hold_identity(tmp_path / "state", lock_dir=tmp_path / "run") as identity:
            assert [problem.code for problem in identity.problems] == codes
        with hold_identity(tmp_path / "state", lock_dir=tmp_path / "run", may_be_volatile=True) as identity:
            assert identity.problems == ()
