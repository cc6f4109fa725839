"""Who this node is: an id and a MAC address that outlive the daemon, and the locks that make it the only one.

The state directory holds `node.json`.  It is worth something only where it was made: the file tells the machine
and the inode that it belongs to, so a copy on another node, or one that came back from a backup, is seen for
what it is.  Then this is a new node, with an id, a MAC and a subnet of its own; two nodes under one identity
would be worse.  (The file system's device number is not compared: it may change at every boot.)

Where the directory can't be written the node runs on with an identity that lasts as long as the process, and
says so: after a restart its own lease will look like a stranger's.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from overlayd.core.network.addresses import Mac
from overlayd.core.status.problem import Problem
from overlayd.host.files import find_text, write_atomically

MACHINE_ID = Path("/etc/machine-id")
"""machine-id(5); absent in some containers, and then not compared."""
_MOUNTS = Path("/proc/self/mountinfo")
_VOLATILE = ("tmpfs", "ramfs")
ABSTRACT_LOCK = "\0overlayd"
"""An abstract unix socket (unix(7)) belongs to one network namespace, just as the kernel state that a daemon
programs: the name is free again when its holder ends, however it ends."""


class IdentityError(Exception):
    """Another daemon has this node, or the identity file can't be believed."""


@dataclass(frozen=True, slots=True)
class Identity:
    node_id: str
    mac: Mac
    problems: tuple[Problem, ...] = ()


class NodeFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The contents of node.json."""

    id: str
    mac: str
    machine: str
    inode: int


@contextmanager
def hold_identity(state_dir: Path, *, may_be_volatile: bool = False) -> Iterator[Identity]:
    """The node's identity, locked for as long as the context is open; raises IdentityError.

    A problem is a directory that forgets it at the next boot, unless it `may_be_volatile`.
    """
    with hold_namespace():
        try:
            state_dir.mkdir(parents=True, exist_ok=True)
            lock = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            yield _unlocked(state_dir, error)
            return
        try:
            _lock(lock, state_dir)
            identity = _load_or_make(state_dir)
            volatile = () if may_be_volatile else _judge_durability(state_dir)
            yield replace(identity, problems=(*identity.problems, *volatile))
        finally:
            os.close(lock)


def load_identity(state_dir: Path) -> Identity | None:
    """The identity that was made here, None if there is none, or only a copy of another's; takes no lock."""
    path = _path(state_dir)
    node = _read(path)
    return Identity(node.id, Mac.parse(node.mac)) if node is not None and _is_at_home(path, node) else None


def _path(state_dir: Path) -> Path:
    return state_dir / "node.json"


def _read(path: Path) -> NodeFile | None:
    try:
        if (text := find_text(path)) is None:
            return None
        node = msgspec.json.decode(text, type=NodeFile)
        if not node.id.isalnum() or len(node.id) > 64:
            raise ValueError(f"id {node.id!r} is not a plain word of at most 64 characters")
        if not Mac.parse(node.mac).is_unicast:
            raise ValueError(f"MAC {node.mac} is not a unicast address")
    except (OSError, ValueError) as error:
        raise IdentityError(
            f"{path} is damaged: {error}. Restore it, or remove it to make this a new node with a new subnet"
        ) from error
    return node


def _is_at_home(path: Path, node: NodeFile) -> bool:
    return (node.machine, node.inode) == (_machine(), path.stat().st_ino)


def _machine() -> str:
    return (find_text(MACHINE_ID) or "").strip()


def _load_or_make(state_dir: Path) -> Identity:
    path = _path(state_dir)
    stranger = _read(path)
    if stranger is not None and _is_at_home(path, stranger):
        return Identity(stranger.id, Mac.parse(stranger.mac))
    fresh = _new()

    def text(inode: int) -> str:
        node = NodeFile(fresh.node_id, str(fresh.mac), _machine(), inode)
        return msgspec.json.encode(node).decode() + "\n"

    try:
        write_atomically(path, text, 0o600)
    except OSError as error:
        return _fleeting(state_dir, error)
    if stranger is None:
        return fresh
    problem = Problem(
        "identity-copied",
        f"{path} was copied here (it is node {stranger.id}'s): this is a new node now, {fresh.node_id}",
        "Nothing to do, unless this machine is meant to be that node: its old subnet comes free by itself",
    )
    return Identity(fresh.node_id, fresh.mac, (problem,))


def _judge_durability(state_dir: Path) -> tuple[Problem, ...]:
    kind = _filesystem(state_dir.stat().st_dev)
    if kind not in _VOLATILE:
        return ()
    return (
        Problem(
            "identity-volatile",
            f"{state_dir} is on a {kind}, which is empty after a reboot: this node will then have another "
            "identity, and another subnet",
            "Choose a directory on a disk (--state-dir), or say that it is meant so: --identity volatile",
        ),
    )


def _filesystem(device: int) -> str:
    """The type of the mounted file system with this device number, "" if it can't be told (proc(5), mountinfo)."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in (find_text(_MOUNTS) or "").splitlines():
        place, _, what = line.partition(" - ")
        if place.split()[2] == wanted:
            return what.split()[0]
    return ""


def _new() -> Identity:
    return Identity(secrets.token_hex(16), Mac.local(secrets.token_bytes(6)))


def _unlocked(state_dir: Path, error: OSError) -> Identity:
    """On a disk that can't be written: the identity that stands there, else one for this process alone."""
    if (known := load_identity(state_dir)) is None:
        return _fleeting(state_dir, error)
    problem = Problem(
        "state-dir-unwritable",
        f"{state_dir} can't be written: {error.strerror}; the identity that it holds is used, but not locked",
        "Make the directory writable (--state-dir)",
    )
    return Identity(known.node_id, known.mac, (problem,))


def _fleeting(state_dir: Path, error: OSError) -> Identity:
    problem = Problem(
        "state-dir-unwritable",
        f"the identity of this node can't be kept in {state_dir}: {error.strerror}",
        "Make the directory writable (--state-dir), or the node takes a new subnet at its next start",
    )
    fresh = _new()
    return Identity(fresh.node_id, fresh.mac, (problem,))


def _lock(descriptor: int, state_dir: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        raise IdentityError(
            f"another overlayd (process {holder}) uses {state_dir}. "
            "Stop it, or give this one a --state-dir of its own"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)


@contextmanager
def hold_namespace() -> Iterator[None]:
    """Be the only overlayd that programs this network namespace; raises IdentityError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as lock:
        try:
            lock.bind(ABSTRACT_LOCK)
            lock.listen()
        except OSError:
            raise IdentityError(
                f"another overlayd{_holder()} runs in this network namespace. Stop it first"
            ) from None
        yield


def _holder() -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(ABSTRACT_LOCK)
            credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        except OSError:
            return ""
        pid, uid, _ = struct.unpack("3i", credentials)
        return f" (process {pid} of user {uid})"
