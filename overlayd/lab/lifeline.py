"""The lifeline: a socket pair between `overlayd lab up` and the holder of the lab that it launches.

The holder reports its progress over it.  If the other end closes before it sent `DETACH` (the command failed, was
interrupted or was killed), the holder ends, and with it the lab.  The holder inherits its end when it starts, so
at no instant can it be orphaned.
"""

from __future__ import annotations

import enum

import msgspec

from overlayd.lab.snapshot import LabSnapshot

DETACH = b"detach\n"


class LaunchStep(enum.StrEnum):
    """The steps of launching a lab, in order."""

    NETWORK = "underlay"
    ETCD = "etcd"
    DAEMONS = "leases"
    PODS = "pods"
    OVERLAY = "overlay"


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """So far `done` of `of` are complete in this step."""

    step: LaunchStep
    done: int
    of: int


class Up(msgspec.Struct, frozen=True, tag="up"):
    """The overlay has converged."""

    snapshot: LabSnapshot


class LaunchFailed(msgspec.Struct, frozen=True, tag="failed"):
    """The lab will not come up; `log` has the last lines of the process that failed."""

    reason: str
    log: tuple[str, ...] = ()


News = Progress | Up | LaunchFailed


def encode(news: News) -> bytes:
    return msgspec.json.encode(news) + b"\n"


def decode(line: bytes) -> News:
    return msgspec.json.decode(line, type=Progress | Up | LaunchFailed)
