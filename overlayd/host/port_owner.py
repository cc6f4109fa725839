"""Who has a port of this host, as far as the process may see: from the socket's inode to its holder.

Sources: proc(5), /proc/net/udp and tcp, /proc/<pid>/fd.  A socket of the kernel's own, such as a vxlan device's,
and one whose holder is in another PID namespace have no owner that can be named.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")
_TABLES = "thread-self/net"
"""Of the network namespace of the thread that reads them."""
_TCP_LISTEN = "0A"
"""include/net/tcp_states.h."""
_SAMPLES = 3
"""How many owners are named of a port that several share."""


def find_udp_owner(port: int) -> str | None:
    """Find the owner of a UDP port, such as `flanneld (pid 4711)`; None where it can't be named.

    Reads the descriptors of every process: for when something went wrong, not for every day.
    """
    return _find_owner({inode for table in ("udp", "udp6") for inode in _inodes(table, port)})


def is_udp_port_our_own(port: int) -> bool:
    """Tell whether this process itself has a socket on the port."""
    wanted = {f"socket:[{inode}]" for table in ("udp", "udp6") for inode in _inodes(table, port)}
    return not wanted.isdisjoint(_descriptors(_PROC / "self" / "fd"))


def find_tcp_listener(port: int) -> str | None:
    """Find the listener of a TCP port, in the same form."""
    return _find_owner({inode for table in ("tcp", "tcp6") for inode in _inodes(table, port, _TCP_LISTEN)})


def _find_owner(inodes: set[str]) -> str | None:
    if not inodes:
        return None
    owners = sorted({_name(pid) for pid in _holders(inodes)})
    return ", ".join(owners[:_SAMPLES]) or None


def _inodes(table: str, port: int, state: str = "") -> Iterator[str]:
    """Yield the inodes of a port's sockets. The second column is the local address and port in hexadecimal,
    the fourth the state ("" for any), the tenth the inode."""
    try:
        lines = (_PROC / _TABLES / table).read_text().splitlines()[1:]
    except FileNotFoundError:  # a kernel without IPv6
        return
    for line in lines:
        columns = line.split()
        if int(columns[1].rpartition(":")[2], 16) == port and columns[3].endswith(state) and columns[9] != "0":
            yield columns[9]


def _holders(inodes: set[str]) -> Iterator[int]:
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for entry in _PROC.iterdir():
        if entry.name.isdecimal() and not wanted.isdisjoint(_descriptors(entry / "fd")):
            yield int(entry.name)


def _descriptors(directory: Path) -> Iterator[str]:
    """Yield the open files of a process; none of one that has ended, or that we may not read."""
    try:
        for name in os.listdir(directory):
            yield os.readlink(directory / name)
    except OSError:
        return


def _name(pid: int) -> str:
    try:
        command = (_PROC / str(pid) / "comm").read_text(errors="replace").strip()
    except OSError:
        return f"pid {pid}"
    shown = "".join(letter if letter.isprintable() else "?" for letter in command)
    return f"{shown} (pid {pid})"
