"""Opening a TCP port of this host, or saying who or what is in the way."""

from __future__ import annotations

import errno
from ipaddress import IPv4Address, IPv6Address

import trio

from overlayd.host.port_owner import find_tcp_listener


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
            holder = find_tcp_listener(port) or "another process"
            return f"{holder} listens there. Stop it, or choose another port"
        case errno.EADDRNOTAVAIL:
            return f"no interface of this host has the address {address}"
        case errno.EACCES:
            return "ports below 1024 need root or CAP_NET_BIND_SERVICE. Choose a higher one"
        case _:
            return error.strerror or str(error)
