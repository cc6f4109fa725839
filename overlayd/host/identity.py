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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
LOCK_DIR = Path("/run/overlayd")
"""Where the locks of network namespaces are, whatever --run-dir says: two daemons must meet there."""
_NETNS = Path("/proc/self/ns/net")
"""Its inode number tells network namespaces apart (namespaces(7))."""


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
def hold_identity(
    state_dir: Path, *, may_be_volatile: bool = False, lock_dir: Path = LOCK_DIR
) -> Iterator[Identity]:
    """Hold the node's identity, locked for as long as the context is open; raises IdentityError.

    A problem is a directory that forgets it at the next boot, unless it `may_be_volatile`.
    """
    with hold_namespace(lock_dir):
        try:
            state_dir.mkdir(parents=True, exist_ok=True)
            lock = _open_lock(state_dir / "lock")
        except OSError as error:
            yield _unlocked(state_dir, error)
            return
        try:
            _lock(lock, f"uses {state_dir}. Stop it, or give this one a --state-dir of its own")
            identity = _load_or_make(state_dir)
            volatile = () if may_be_volatile else _judge_durability(state_dir)
            yield replace(identity, problems=(*identity.problems, *volatile))
        finally:
            os.close(lock)


def load_identity(state_dir: Path) -> Identity | None:
    """Load the identity that was made here, None if there is none, or only a copy; takes no lock."""
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
        raise IdentityError(f"{path} is damaged: {error}") from error
    return node


def _is_at_home(path: Path, node: NodeFile) -> bool:
    return (node.machine, node.inode) == (_machine(), path.stat().st_ino)


def _machine() -> str:
    return (find_text(MACHINE_ID) or "").strip()


def _load_or_make(state_dir: Path) -> Identity:
    path = _path(state_dir)
    try:
        stranger = _read(path)
    except IdentityError as error:
        return _replace_damaged(path, str(error))
    if stranger is not None and _is_at_home(path, stranger):
        return Identity(stranger.id, Mac.parse(stranger.mac))
    return _make(path, stranger)


def _replace_damaged(path: Path, reason: str) -> Identity:
    """Start as a new node, with the damaged file put aside: a lost identity must not keep the network down."""
    aside = path.with_name("node.json.damaged")
    try:
        os.replace(path, aside)
    except OSError as error:
        return _fleeting(path.parent, error)
    fresh = _make(path, None)
    problem = Problem(
        "identity-lost",
        f"{reason}: this is a new node now, {fresh.node_id}",
        f"Restore {path} from {aside} or a backup while the daemon is stopped, if the old subnet is needed",
    )
    return replace(fresh, problems=(problem, *fresh.problems))


def _make(path: Path, stranger: NodeFile | None) -> Identity:
    fresh = _new()

    def text(inode: int) -> str:
        node = NodeFile(fresh.node_id, str(fresh.mac), _machine(), inode)
        return msgspec.json.encode(node).decode() + "\n"

    try:
        write_atomically(path, text, 0o600)
    except OSError as error:
        return _fleeting(path.parent, error)
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
    """Return the type of the mounted file system with this device number, "" if it can't be told (proc(5),
    mountinfo)."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in (find_text(_MOUNTS) or "").splitlines():
        place, _, what = line.partition(" - ")
        if place.split()[2] == wanted:
            return what.split()[0]
    return ""


def _new() -> Identity:
    return Identity(secrets.token_hex(16), Mac.local(secrets.token_bytes(6)))


def _unlocked(state_dir: Path, error: OSError) -> Identity:
    """Return, on a disk that can't be written, the identity there, else one for this process alone."""
    try:
        known = load_identity(state_dir)
    except IdentityError:
        known = None
    if known is None:
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


def _lock(descriptor: int, conflict: str) -> None:
    """Take the lock; `conflict` ends the sentence about the process that has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        found = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        holder = found if found.isdecimal() else "unknown"
        raise IdentityError(f"another overlayd (process {holder}) {conflict}") from None
    with suppress(OSError):  # on a full disk nobody learns our number, and the lock holds all the same
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)


@contextmanager
def hold_namespace(lock_dir: Path = LOCK_DIR) -> Iterator[None]:
    """Hold the lock of this network namespace, so that no other overlayd programs it; raises IdentityError.

    The lock is a file where only root may write, named after the namespace: an abstract socket or a port, which
    any user can take, would let any user keep daemons from starting.  Where the directory can't be written nothing
    is locked.
    """
    name = f"netns-{os.stat(_NETNS).st_ino}.lock"
    try:
        lock_dir.mkdir(parents=True, exist_ok=True)
        lock = _open_lock(lock_dir / name)
    except OSError:
        yield
        return
    try:
        _lock(lock, "runs in this network namespace. Stop it first")
        yield
    finally:
        os.close(lock)


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
