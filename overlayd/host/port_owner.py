"""Who has a UDP port of this host, as far as the process may see: from the socket's inode to its holder.

Sources: proc(5), /proc/net/udp and /proc/<pid>/fd.  A socket of the kernel's own, such as a vxlan device's, and
one whose holder is in another PID namespace have no owner that can be named.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")
_TABLES = ("thread-self/net/udp", "thread-self/net/udp6")
"""Of the network namespace of the thread that reads them."""
_SAMPLES = 3
"""How many owners are named of a port that several share."""


def find_udp_owner(port: int) -> str | None:
    """Such as `flanneld (pid 4711)`; None where nobody can be named.

    Reads the descriptors of every process: for when something went wrong, not for every day.
    """
    inodes = {inode for table in _TABLES for inode in _inodes(_PROC / table, port)}
    if not inodes:
        return None
    owners = sorted({_name(pid) for pid in _holders(inodes)})
    return ", ".join(owners[:_SAMPLES]) or None


def _inodes(table: Path, port: int) -> Iterator[str]:
    """The second column is the local address and port in hexadecimal, the tenth the inode."""
    try:
        lines = table.read_text().splitlines()[1:]
    except FileNotFoundError:  # a kernel without IPv6
        return
    for line in lines:
        columns = line.split()
        if int(columns[1].rpartition(":")[2], 16) == port and columns[9] != "0":
            yield columns[9]


def _holders(inodes: set[str]) -> Iterator[int]:
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for entry in _PROC.iterdir():
        if entry.name.isdecimal() and not wanted.isdisjoint(_descriptors(entry / "fd")):
            yield int(entry.name)


def _descriptors(directory: Path) -> Iterator[str]:
    """What a process has open; nothing of one that has ended, or that isn't ours to look into."""
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
