"""Opening a TCP port of this host, or saying who or what is in the way."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import trio

_LISTEN = "0A"
"""TCP_LISTEN (include/net/tcp_states.h), as /proc/net/tcp writes it."""


class ListenError(Exception):
    """The port can't be opened; the text says why, and what would work."""


async def open_listeners(address: IPv4Address | IPv6Address, port: int) -> list[trio.SocketListener]:
    """Listen on a TCP port of one address (0.0.0.0 or :: for all).  Raises ListenError."""
    try:
        return await trio.open_tcp_listeners(port, host=str(address))
    except OSError as error:
        where = f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
        raise ListenError(f"--listen {where} is not to be had: {_explain(error, address, port)}") from error


def _explain(error: OSError, address: IPv4Address | IPv6Address, port: int) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            holder = find_listening_process(port) or "another process"
            return f"{holder} listens there. Stop it, or choose another port"
        case errno.EADDRNOTAVAIL:
            return f"no interface of this host has the address {address}"
        case errno.EACCES:
            return "ports below 1024 need root or CAP_NET_BIND_SERVICE. Choose a higher one"
        case _:
            return error.strerror or str(error)


def find_listening_process(port: int) -> str | None:
    """`process 17 (nginx)`: who listens on a TCP port of our network namespace, as far as we may see."""
    sockets = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if any(os.readlink(fd) in sockets for fd in (entry / "fd").iterdir()):
                return f"process {entry.name} ({(entry / 'comm').read_text().strip()})"
        except OSError:
            continue  # it has ended meanwhile, or is none of our business
    return None


def _listening_inodes(port: int) -> Iterator[str]:
    """proc(5), /proc/net/tcp: the second field is the local address, the fourth the state, the tenth the inode."""
    for table in ("tcp", "tcp6"):
        path = Path("/proc/self/net", table)
        for line in path.read_text().splitlines()[1:] if path.exists() else ():
            fields = line.split()
            if re.fullmatch(rf"[0-9A-F]+:{port:04X}", fields[1]) and fields[3] == _LISTEN:
                yield fields[9]
