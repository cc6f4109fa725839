"""The control channel of a running lab: one request and one answer a connection, each a line of JSON.

There is no state file.  A lab *is* the process that listens on the abstract unix socket
`@overlayd-lab/<uid>/<name>` of the host's network namespace.  The kernel frees that name when the process ends,
however it ends, so the socket is lock, registry and control channel in one.  Abstract names belong to one network
namespace, so inside the lab the same requests go to `CONTROL_SOCKET` in its own file system.
"""

from __future__ import annotations

import enum
import os
import re
import socket
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from overlayd.core.status.status import StatusAnswer
from overlayd.lab.model import HOME
from overlayd.lab.snapshot import LabSnapshot

if TYPE_CHECKING:  # importing it would double the time of a command that only sends a request
    import trio

CONTROL_SOCKET = HOME / "control.sock"
_PREFIX = "overlayd-lab"


class LabError(Exception):
    """An error for the user: what did not work, and what would."""


class NoSuchLab(LabError):
    """No lab of this name is up."""


class Ask(enum.StrEnum):
    SNAPSHOT = "snapshot"
    STATUS = "status"
    """The snapshot, and the answer of each running daemon to `overlayd status`."""
    START = "start"
    """Start a node's daemon or a member of etcd; answered once the process runs, not once it is healthy."""
    STOP = "stop"
    """SIGTERM to it; answered once it has ended."""
    KILL = "kill"
    """SIGKILL to it; answered once it has ended."""
    PAUSE = "pause"
    """SIGSTOP to it: to its peers its machine looks hung."""
    RESUME = "resume"
    """SIGCONT to it."""
    DOWN = "down"
    """End the lab."""


@dataclass(frozen=True)
class LabRequest:
    """A request.  `whom` names a node, for its daemon, or a member of etcd."""

    ask: Ask
    whom: str = ""


@dataclass(frozen=True)
class DaemonAnswer:
    """The status of a node's daemon, or, in `failure`, why there is none."""

    answer: StatusAnswer | None = None
    failure: str = ""


@dataclass(frozen=True)
class Reply:
    """An answer.  `error` is "" after a success.  `answers` is by node, and filled for Ask.STATUS only."""

    error: str = ""
    snapshot: LabSnapshot | None = None
    answers: dict[str, DaemonAnswer] = field(default_factory=dict)


def socket_name(name: str, uid: int | None = None) -> str:
    """Return the abstract address of a lab of this user."""
    return f"\0{_PREFIX}/{os.getuid() if uid is None else uid}/{name}"


def running_labs() -> tuple[str, ...]:
    """List the names of this user's labs that are up in this network namespace."""
    found = re.findall(rf" @{_PREFIX}/{os.getuid()}/(\S+)$", Path("/proc/net/unix").read_text(), re.MULTILINE)
    return tuple(sorted(set(found)))


def ask(address: str | Path, verb: Ask, whom: str = "", *, timeout: float = 60) -> Reply:
    """Send a request to the lab at `address` (a path, or an abstract name as from `socket_name`).

    Raises LabError with the lab's own text when it refuses, OSError when it can't be reached.
    """
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(timeout)
        sock.connect(str(address))
        sock.sendall(msgspec.json.encode(LabRequest(verb, whom)) + b"\n")
        text = b"".join(iter(lambda: sock.recv(65536), b""))
    if not text:
        raise LabError("the lab ended before it answered")
    reply = msgspec.json.decode(text, type=Reply)
    if reply.error:
        raise LabError(reply.error)
    return reply


def ask_from_inside(verb: Ask, whom: str = "") -> Reply:
    """Send a request to the lab that the caller runs in."""
    return ask(CONTROL_SOCKET, verb, whom)


def peer_credentials(sock: socket.socket | trio.socket.SocketType) -> tuple[int, int]:
    """Return the PID and UID of the process at the other end (unix(7), SO_PEERCRED: struct ucred).

    They are as this process's namespaces number them; a listener's are those of the process that called listen(2).
    """
    pid, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid
