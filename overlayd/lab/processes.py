"""The processes of a lab, which the holder starts and reaps.

The holder is PID 1 of its PID namespace and so the parent of every orphan in it.  It therefore waits for *any*
child, and each `Process` reports its own end.  (subprocess and trio.Process each wait for their own child: they
would take each other's exit statuses.)
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import trio

from overlayd.host.netlink.netns import in_netns


@dataclass(eq=False)
class Process:
    pid: int
    log_file: Path
    on_end: Callable[[Process], None] | None = None
    """Called when it was reaped, just before `ended` is set."""
    status: int | None = None
    """As waitpid(2) returns it; None while it runs."""
    ended: trio.Event = field(default_factory=trio.Event)

    @property
    def succeeded(self) -> bool:
        return self.status == 0

    @property
    def end(self) -> str:
        """How it ended, in words; "" while it runs."""
        return "" if self.status is None else describe_status(self.status)

    def send(self, signum: signal.Signals) -> None:
        """Send a signal, unless the process was reaped: its PID may be another's by now."""
        if self.status is None:
            os.kill(self.pid, signum)


def last_lines(log_file: Path, count: int) -> tuple[str, ...]:
    return tuple(log_file.read_text(errors="replace").splitlines()[-count:])


def describe_status(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"exit status {code}" if code >= 0 else signal.Signals(-code).name


class Spawner:
    """Starts processes; `reap` must run as a task for as long as the end of any of them matters."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._alive: dict[int, Process] = {}

    def spawn(
        self,
        command: Sequence[str],
        log_file: Path,
        *,
        network: str | None = None,
        on_end: Callable[[Process], None] | None = None,
    ) -> Process:
        """Start a program in a session of its own, in a named network namespace if one is given.

        Its output is appended to `log_file`.  Raises OSError when there is no such program.
        """
        log_file.parent.mkdir(parents=True, exist_ok=True)
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND

        def start() -> int:
            return os.posix_spawnp(
                command[0],
                list(command),
                self._environment,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, str(log_file), append, 0o644),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                ],
                setsid=True,
                setsigdef=[signal.SIGPIPE],  # which Python ignores, and a child would inherit that
            )

        pid = in_netns(network, start)
        process = self._alive[pid] = Process(pid, log_file, on_end)
        return process

    async def reap(self) -> None:
        with trio.open_signal_receiver(signal.SIGCHLD) as signals:
            self._reap_ended()  # those that ended before the receiver was open
            async for _ in signals:
                self._reap_ended()

    def _reap_ended(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            process = self._alive.pop(pid, None)
            if process is not None:  # else it was an orphan
                process.status = status
                if process.on_end:
                    process.on_end(process)
                process.ended.set()
