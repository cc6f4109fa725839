"""The thread between `overlayd lab up` and the lab that it makes.

Each holds one end of a socket pair.  The holder tells its news over it.  If the other end closes before the
word `DETACH` was said (the command failed, was interrupted or was killed), the holder ends, and with it the
lab.  The holder is born with its end in hand, so there is no instant in which it could be orphaned.
"""

from __future__ import annotations

import enum

import msgspec

from overlayd.lab.snapshot import LabSnapshot

DETACH = b"detach\n"


class LaunchStep(enum.StrEnum):
    """The stages of making a lab, in order."""

    NETWORK = "underlay"
    ETCD = "etcd"
    DAEMONS = "leases"
    PODS = "pods"
    OVERLAY = "overlay"


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """`done` of `of` in this step."""

    step: LaunchStep
    done: int
    of: int


class Up(msgspec.Struct, frozen=True, tag="up"):
    """The overlay has converged."""

    facts: LabSnapshot


class LaunchFailed(msgspec.Struct, frozen=True, tag="failed"):
    """It will not come up: a sentence, and the last lines of the log of whoever is to blame."""

    reason: str
    log: tuple[str, ...] = ()


News = Progress | Up | LaunchFailed


def encode(news: News) -> bytes:
    return msgspec.json.encode(news) + b"\n"


def decode(line: bytes) -> News:
    return msgspec.json.decode(line, type=Progress | Up | LaunchFailed)
