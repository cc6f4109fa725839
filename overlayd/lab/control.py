"""How to talk to a running lab: one request in a line of JSON, one answer in a line of JSON, per connection.

There is no state file.  A lab *is* the process that listens on the abstract unix socket
`@overlayd-lab/<uid>/<name>` of the host's network namespace: the kernel takes that name away in the instant
the process ends, however it ends, so the socket is lock, registry and control channel in one.  Abstract
names belong to one network namespace, so that inside the lab the same requests go to `CONTROL_SOCKET` on its
own file system.
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

if TYPE_CHECKING:  # loading it would double the time that a command takes which only asks
    import trio

CONTROL_SOCKET = HOME / "control.sock"
_PREFIX = "overlayd-lab"


class LabError(Exception):
    """A sentence for the user: what did not work, and what would."""


class NoSuchLab(LabError):
    """No lab of this name is up."""


class Ask(enum.StrEnum):
    FACTS = "facts"
    STATUS = "status"
    """Facts, and beside them what each running daemon answers to `overlayd status`."""
    START = "start"
    """Start a node's daemon or a member of etcd; answered once the process runs, not once it is healthy."""
    STOP = "stop"
    """SIGTERM to it; answered once it has ended."""
    KILL = "kill"
    """SIGKILL to it; answered once it has ended."""
    PAUSE = "pause"
    """SIGSTOP to it: to everybody else it looks as if its machine hung."""
    RESUME = "resume"
    """SIGCONT to it."""
    DOWN = "down"
    """End the lab."""


@dataclass(frozen=True)
class LabRequest:
    """`whom`: a node, for its daemon, or a member of etcd."""

    ask: Ask
    whom: str = ""


@dataclass(frozen=True)
class Voice:
    """What the daemon of a node says of itself, or, in `silent`, why it says nothing."""

    answer: StatusAnswer | None = None
    silent: str = ""


@dataclass(frozen=True)
class Reply:
    """`error` is a sentence, "" where all went well.  `voices` is filled for Ask.STATUS only, by node."""

    error: str = ""
    facts: LabSnapshot | None = None
    voices: dict[str, Voice] = field(default_factory=dict)


def socket_name(name: str, uid: int | None = None) -> str:
    """The abstract address of a lab of this user."""
    return f"\0{_PREFIX}/{os.getuid() if uid is None else uid}/{name}"


def running_labs() -> tuple[str, ...]:
    """The names of this user's labs that are up in this network namespace."""
    found = re.findall(rf" @{_PREFIX}/{os.getuid()}/(\S+)$", Path("/proc/net/unix").read_text(), re.MULTILINE)
    return tuple(sorted(set(found)))


def ask(address: str | Path, verb: Ask, whom: str = "", *, timeout: float = 60) -> Reply:
    """Ask the lab at `address` (a path, or an abstract name as from `socket_name`).

    Raises LabError with the lab's own sentence when it refuses, OSError when it can't be reached.
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
    """Ask the lab that the caller runs in."""
    return ask(CONTROL_SOCKET, verb, whom)


def peer_credentials(sock: socket.socket | trio.socket.SocketType) -> tuple[int, int]:
    """PID and UID of the process at the other end (unix(7), SO_PEERCRED: struct ucred), as this process's
    namespaces number them.  For a listener they are those of the process that called listen(2)."""
    pid, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid
