"""Notifications to systemd: ready, the state in a line, still alive, stopping.

The protocol is sd_notify(3)'s: lines of text in one datagram to the unix socket that $NOTIFY_SOCKET names.  They
are decided from the daemon's Answer alone, again and again.  So a lost one is repeated.  A loop that hangs shows
as an Answer that grows old: then the signs of life stop, and systemd's watchdog does its work.
"""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass

import trio

from overlayd.core.status.health import why_not_alive, why_not_ready
from overlayd.core.status.status import StatusAnswer, Verdict

log = logging.getLogger("overlayd.systemd")

EAGER, CALM = 1.0, 10.0
"""Seconds between two looks at the Answer: until the node was ready for the first time, and from then on."""


class NotifyError(ValueError):
    """The environment does not name a supervisor as sd_notify(3) and sd_watchdog_enabled(3) say."""


@dataclass(frozen=True, slots=True)
class Supervisor:
    """The receiver of notifications.  `address` as for socket.sendto; `watchdog` is the number of seconds
    after which silence counts as death, None where nobody waits for signs of life."""

    address: str
    watchdog: float | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """The supervisor's present knowledge."""

    ready: bool = False
    status: str = ""


def take_supervisor(environ: MutableMapping[str, str], pid: int) -> Supervisor | None:
    """Take the supervisor of this process, None if it has none.  Its variables are taken out of `environ`: our
    children are not to speak in our name.  Raises NotifyError."""
    where = environ.pop("NOTIFY_SOCKET", "")
    patience = environ.pop("WATCHDOG_USEC", "")
    meant = environ.pop("WATCHDOG_PID", "")
    if not where:
        return None
    if not where.startswith(("/", "@")) or len(where) < 2:
        raise NotifyError(f"NOTIFY_SOCKET={where!r} is neither an absolute path nor an abstract socket like @name")
    if patience and not re.fullmatch(r"[1-9][0-9]{0,15}", patience, re.ASCII):
        raise NotifyError(f"WATCHDOG_USEC={patience!r} is not a number of microseconds")
    address = "\0" + where[1:] if where.startswith("@") else where
    is_meant = patience and meant in ("", str(pid))
    return Supervisor(address, int(patience) / 1e6 if is_meant else None)


def compose_news(answer: StatusAnswer, told: Told, *, watchdog: bool) -> tuple[list[str], Told]:
    """Compose the lines to send now, and what is known once they have arrived."""
    ready = told.ready or not why_not_ready(answer)
    after = Told(ready, compose_summary(answer))
    lines = []
    if ready and not told.ready:
        lines.append("READY=1")
    if after.status != told.status:
        lines.append(f"STATUS={after.status}")
    if watchdog and not why_not_alive(answer):
        lines.append("WATCHDOG=1")
    return lines, after


def compose_summary(answer: StatusAnswer) -> str:
    """Compose one line for `systemctl status`."""
    status = answer.status
    if answer.verdict is Verdict.HEALTHY and status.lease is not None:
        return f"healthy: {status.lease.subnet}, {status.peers_in_sync}/{len(status.peers)} peers"
    word = "cannot tell" if answer.verdict is Verdict.UNKNOWN else "degraded"
    causes = dict.fromkeys(problem.code for problem in status.problems)
    return f"{word}: {answer.reason}" + (f" ({', '.join(causes)})" if causes else "")


async def keep_informed(supervisor: Supervisor, current: Callable[[], StatusAnswer]) -> None:
    """Tell the supervisor until cancelled, and that too."""
    told = Told()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        line = _Line(sock, supervisor.address)
        try:
            while True:
                lines, after = compose_news(current(), told, watchdog=supervisor.watchdog is not None)
                if line.send(lines):
                    told = after
                pause = CALM if told.ready else EAGER
                await trio.sleep(pause if supervisor.watchdog is None else min(pause, supervisor.watchdog / 2))
        finally:
            line.send(["STOPPING=1"])


class _Line:
    """To the supervisor; complains once when it breaks."""

    def __init__(self, sock: socket.socket, address: str) -> None:
        self._sock = sock
        self._address = address
        self._broken = False

    def send(self, lines: list[str]) -> bool:
        """Send the lines; tell whether they have arrived."""
        if not lines:
            return True
        try:
            self._sock.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            if not self._broken:
                log.warning("systemd can't be told", extra={"reason": error.strerror or str(error)})
            self._broken = True
        else:
            self._broken = False
        return not self._broken
