"""Access to a running lab from the host: find it, send it requests, enter it, end it."""

from __future__ import annotations

import os
import select
import shlex
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from overlayd.lab.control import (
    Ask,
    LabError,
    NoSuchLab,
    Reply,
    ask,
    peer_credentials,
    running_labs,
    socket_name,
)
from overlayd.lab.snapshot import LabSnapshot

END_PATIENCE = 10.0
"""Seconds that a holder may take to end, once it was asked to or its lifeline is cut."""


@dataclass(frozen=True)
class RunningLab:
    """A lab that is up.  `pid` is the holder's, as the caller's PID namespace numbers it."""

    name: str
    pid: int

    def ask(self, verb: Ask, whom: str = "", *, timeout: float = 60) -> Reply:
        """Send a request.  Raises LabError."""
        try:
            return ask(socket_name(self.name), verb, whom, timeout=timeout)
        except OSError as error:
            raise LabError(f"lab {self.name!r} does not answer: {error}") from error

    def snapshot(self) -> LabSnapshot:
        snapshot = self.ask(Ask.SNAPSHOT).snapshot
        assert snapshot is not None  # every reply without an error has them
        return snapshot

    def entrance(self, place: str | None, command: Sequence[str]) -> list[str]:
        """Build the command line that runs `command` in a node's or pod's network namespace.

        Without a place it runs in the lab's root namespace.  `ip netns exec` also mounts that namespace's /sys.
        """
        target = Path(f"/proc/{self.pid}/ns/user")
        own_user_namespace = target.readlink() != Path("/proc/self/ns/user").readlink()
        return [
            *("nsenter", "--target", str(self.pid), "--mount", "--net", "--pid"),
            *(("--user", "--preserve-credentials") if own_user_namespace else ()),
            "--",
            *(("ip", "netns", "exec", place) if place else ()),
            *command,
        ]

    def end(self, patience: float = END_PATIENCE) -> None:
        """Take the lab down and wait until the kernel has removed it.

        A holder that does not end within `patience` seconds is killed, with the same result.
        """
        holder = os.pidfd_open(self.pid)
        try:
            with suppress(LabError):
                self.ask(Ask.DOWN, timeout=patience)
            if not wait_ended(holder, patience):
                signal.pidfd_send_signal(holder, signal.SIGKILL)
                if not wait_ended(holder, END_PATIENCE):
                    raise LabError(f"lab {self.name!r} is still there: process {self.pid} can't be killed")
        finally:
            os.close(holder)


def wait_ended(process: int, patience: float) -> bool:
    """Wait until the process of a pidfd has ended; whether it did within `patience` seconds.

    PID 1 of a namespace ends only after every other process of the namespace.
    """
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(patience * 1000))


def find_lab(name: str) -> RunningLab:
    """Find the running lab of this user with this name.  Raises NoSuchLab."""
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(socket_name(name))
        except ConnectionRefusedError:
            raise NoSuchLab(describe_absence(name, running_labs())) from None
        pid, uid = peer_credentials(sock)
    if uid != os.getuid():
        raise LabError(f"process {pid} of user {uid}, who is not you, holds the name of lab {name!r}")
    return RunningLab(name, pid)


def describe_absence(name: str, others: Sequence[str]) -> str:
    """Explain why no lab of this name answers, and what to do."""
    if name in others:
        return f"lab {name!r} is just being made or taken down: try again"
    if others:
        return f"no lab named {name!r} is up; up are: {', '.join(others)} (choose with --name)"
    suffix = "" if name == "lab" else f" --name {shlex.quote(name)}"
    return f"no lab named {name!r} is up: `overlayd lab up{suffix}` makes one"
