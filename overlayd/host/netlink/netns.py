"""Doing one thing in another network namespace, without ever moving there.

A network namespace belongs to a thread.  So a thread is made for the one call, moves, makes the call and ends;
sockets that it opened stay in that namespace for good.  Python 3.11 has no os.setns, the C library has.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
"""linux/sched.h"""

NAMED = Path("/run/netns")
"""Where `ip netns` keeps its namespaces, see ip-netns(8)."""


def in_netns(netns: str | None, call: Callable[[], T]) -> T:
    """Call `call` in the namespace, and return or raise its result: a name known to `ip netns`, a path such as
    /proc/17/ns/net, or None for the caller's own.  Blocks: only for what takes no time.

    Raises OSError where the namespace does not exist or may not be entered.
    """
    if netns is None:
        return call()
    results: list[T] = []
    errors: list[BaseException] = []

    def visit() -> None:
        try:
            _enter(NAMED / netns)  # an absolute path stays as it is
            results.append(call())
        except BaseException as error:  # noqa: BLE001 - it is raised again in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=visit, name=f"netns {netns}")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _enter(path: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(fd, _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"cannot enter the network namespace: {os.strerror(number)}", str(path))
    finally:
        os.close(fd)
