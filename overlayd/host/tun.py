"""TUN devices: netlink shows and deletes them, but only an ioctl on /dev/net/tun makes one.

The device is made persistent, so it outlives the descriptor that made it, and every process that attaches to it
later: same interface index, same address, same routes.  Sources: linux/if_tun.h, linux/if_link.h (IFLA_TUN_*).
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterator

from overlayd.core.kernel.items import TunKind
from overlayd.host.netlink.netns import in_netns
from overlayd.host.netlink.wire import Refusal, attributes

DEVICE = "/dev/net/tun"

_TUNSETIFF = 0x400454CA
_TUNSETPERSIST = 0x400454CB
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
_IFF_TUN_EXCL = 0x8000
_IFREQ = struct.Struct("16sH22x")
"""struct ifreq of linux/if.h with its flags; 40 bytes on 64-bit machines, the most that the kernel reads."""

_SIOCSIFTXQLEN = 0x8943
"""linux/sockios.h"""
_IFREQ_INT = struct.Struct("16si20x")
"""struct ifreq with its ifr_qlen."""
QUEUE = 1000
"""Packets that may wait to be read, as many as for an Ethernet device.  With the 500 that TUN devices are born
with (drivers/net/tun.c, TUN_READQ_SIZE), a quarter of a flood of small packets is lost while the reader waits."""

_IFLA_TUN_OWNER = 1
_IFLA_TUN_GROUP = 2
_IFLA_TUN_TYPE = 3
_IFLA_TUN_PERSIST = 6
_IFLA_TUN_MULTI_QUEUE = 7
_U32 = struct.Struct("=I")


def create_tun(name: str, netns: str | None) -> Refusal | None:
    """Create a persistent TUN device, down, in this namespace (see `in_netns`).

    None, or why not: EEXIST where the name is taken, and the sentence where the kernel's own words say too little.
    """
    try:
        in_netns(netns, lambda: _create(name))
    except OSError as error:
        return Refusal(error.errno or errno.EIO, _advice(error))
    return None


def find_tun_trouble() -> str:
    """Tell why no TUN device can be made here, "" if nothing speaks against it.  Makes none."""
    try:
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return _advice(error)
    return ""


def _create(name: str) -> None:
    fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    try:
        request = _IFREQ.pack(name.encode(), _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR | _IFF_TUN_EXCL)
        fcntl.ioctl(fd, _TUNSETIFF, request)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            fcntl.ioctl(any_socket, _SIOCSIFTXQLEN, _IFREQ_INT.pack(name.encode(), QUEUE))
        fcntl.ioctl(fd, _TUNSETPERSIST, 1)
    finally:
        os.close(fd)


def _advice(error: OSError) -> str:
    if error.filename != DEVICE:
        return ""
    match error.errno:
        case errno.ENOENT | errno.ENODEV | errno.ENXIO:
            return f"there is no {DEVICE}: load the module (modprobe tun), or let the container have the device"
        case errno.EACCES | errno.EPERM:
            return f"{DEVICE} may not be opened: overlayd must run as root, and a container be given the device"
    return f"{DEVICE} can't be opened"


def parse_tun(data: memoryview) -> TunKind | None:
    """Parse the device in IFLA_INFO_DATA of a link of kind `tun`; None for a TAP device, which is of that kind
    too."""
    found = attributes(data, 0)
    if _IFLA_TUN_TYPE not in found or found[_IFLA_TUN_TYPE][0] != _IFF_TUN:
        return None
    return TunKind(tuple(_extra(found)))


def _extra(found: dict[int, memoryview]) -> Iterator[str]:
    if not found[_IFLA_TUN_PERSIST][0]:
        yield "off"
    if found[_IFLA_TUN_MULTI_QUEUE][0]:
        yield "multi_queue"
    for kind, word in ((_IFLA_TUN_OWNER, "user"), (_IFLA_TUN_GROUP, "group")):
        if kind in found:
            yield f"{word} {_U32.unpack(found[kind])[0]}"
