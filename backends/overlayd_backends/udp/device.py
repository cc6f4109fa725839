"""Opening the two ends of a datapath, the TUN device and the UDP socket, with as much offload as this kernel has.

Each end is asked for the most first, and for less as it refuses.  How much is wanted is an argument, so that a
test, or somebody with a broken network card, can forbid any level.
"""

from __future__ import annotations

import enum
import errno
import fcntl
import os
import socket
import struct
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

CLONE = "/dev/net/tun"

TUNSETIFF, TUNSETOFFLOAD, TUNSETVNETLE = 0x400454CA, 0x400454D0, 0x400454DC
"""_IOW('T', 202, int), _IOW('T', 208, unsigned int) and _IOW('T', 220, int) of linux/if_tun.h."""
IFREQ = struct.Struct("16sH22x")
"""struct ifreq of linux/if.h: the name, 15 bytes and a zero, and flags."""
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
"""linux/if_tun.h"""
TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO_ECN, TUN_F_USO4, TUN_F_USO6 = 0x01, 0x02, 0x08, 0x20, 0x40
"""linux/if_tun.h.  USO4 is not to be had without USO6."""

UDP_SEGMENT, UDP_GRO = 103, 104
"""linux/udp.h"""
IP_MTU_DISCOVER, IP_PMTUDISC_DONT, IP_PMTUDISC_DO = 10, 0, 2
"""linux/in.h"""
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
"""asm-generic/socket.h"""
BUFFER = 7 << 20
"""Bytes; with the kernel's default bursts are lost, a third of the throughput."""


class TunOffload(enum.IntEnum):
    """The work that the TUN may leave to us, each level including the ones before: nothing (frames have no
    offload header), checksums, segmentation of TCP, segmentation of UDP (since Linux 6.2)."""

    NONE = 0
    CHECKSUM = 1
    TSO = 2
    USO = 3


_FEATURES = {
    TunOffload.NONE: 0,
    TunOffload.CHECKSUM: TUN_F_CSUM,
    TunOffload.TSO: TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO_ECN,
    TunOffload.USO: TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO_ECN | TUN_F_USO4 | TUN_F_USO6,
}


@dataclass(frozen=True, slots=True)
class Levels:
    """The offloads that are wanted, or in use."""

    tun: TunOffload = TunOffload.USO
    udp_segment: bool = True
    udp_gro: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """As status shows them."""
        tun = tuple(level.name.lower() for level in TunOffload if TunOffload.NONE < level <= self.tun)
        return (*tun, *["udp_segment"] * self.udp_segment, *["udp_gro"] * self.udp_gro)


def attach_tun(name: str, wanted: TunOffload) -> tuple[int, TunOffload]:
    """Attach to the TUN device of this name, which must exist: a non-blocking descriptor, and what it offloads.

    Raises OSError, whose text names the device: there is none, it is no TUN, another process is attached.
    """
    try:
        socket.if_nametoindex(name)  # without it TUNSETIFF would make a device, which would not stay
        return _attach(name, wanted), wanted
    except OSError as error:
        if error.errno == errno.EINVAL and wanted > TunOffload.NONE:
            return attach_tun(name, TunOffload(wanted - 1))
        raise _named(error, f"cannot attach to TUN device {name}") from error


def _attach(name: str, level: TunOffload) -> int:
    """Attach to the TUN.  Raises OSError with EINVAL where the kernel lacks this level of offload."""
    flags = IFF_TUN | IFF_NO_PI | (IFF_VNET_HDR if level > TunOffload.NONE else 0)
    fd = os.open(CLONE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, TUNSETIFF, IFREQ.pack(name.encode(), flags))
        fcntl.ioctl(fd, TUNSETVNETLE, struct.pack("i", 1))
        fcntl.ioctl(fd, TUNSETOFFLOAD, _FEATURES[level])  # also none: the device remembers who was there before
    except OSError:
        os.close(fd)
        raise
    return fd


def open_udp(local: IPv4Address, port: int, wanted: Levels) -> tuple[socket.socket, Levels]:
    """Open a non-blocking socket bound to this address and port, that sends with don't-fragment, and what it
    offloads.

    Raises OSError, whose text names address and port: in use, or not an address of this host.
    """
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        opened.bind((str(local), port))
        opened.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
        _enlarge(opened)
        levels = replace(
            wanted,
            udp_segment=wanted.udp_segment and _has(opened, UDP_SEGMENT, 0),
            udp_gro=wanted.udp_gro and _has(opened, UDP_GRO, 1),
        )
    except OSError as error:
        opened.close()
        raise _named(error, f"cannot use UDP port {port} of {local}") from error
    return opened, levels


def _enlarge(opened: socket.socket) -> None:
    """Room for bursts; without CAP_NET_ADMIN only as much as net.core.rmem_max and wmem_max allow."""
    for forced, plain in ((SO_RCVBUFFORCE, socket.SO_RCVBUF), (SO_SNDBUFFORCE, socket.SO_SNDBUF)):
        try:
            opened.setsockopt(socket.SOL_SOCKET, forced, BUFFER)
        except PermissionError:
            opened.setsockopt(socket.SOL_SOCKET, plain, BUFFER)


def _has(opened: socket.socket, option: int, value: int) -> bool:
    """Tell whether this kernel knows the option, which is set to `value`."""
    try:
        opened.setsockopt(socket.IPPROTO_UDP, option, value)
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            raise
        return False
    return True


def _named(error: OSError, what: str) -> OSError:
    return OSError(error.errno, f"{what}: {error.strerror or error}")
