"""A router on the underlay that loses, delays and doubles packets, for kernels that have no netem.

`python -m support.lossy_relay SEED NODE…`, in a lab's root namespace: what these nodes (by number) send to one
another goes through a TUN device of this process.  Of each 100 packets it drops 1, holds back 2 until some others
have passed, and sends 1 twice.  It says `ready`; when its input closes it undoes all that it changed, and says how
many packets came, and how many of them were lost, held and doubled.
"""

from __future__ import annotations

import fcntl
import os
import random
import select
import struct
import subprocess
import sys
from itertools import permutations

DEVICE = "lossy"
VIA = "10.99.255.200"
"""An address of the root namespace on the underlay."""
TABLE = "77"
LOST, HELD, DOUBLED = 1, 2, 1
"""Of 100 packets."""
HELD_FOR = 5
"""Packets that pass one that is held back."""

_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
"""linux/if_tun.h"""


def ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True)


def open_tun() -> int:
    """Without an offload header, so the kernel cuts superpackets and finishes checksums before they come here."""
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), _IFF_TUN | _IFF_NO_PI))
    return fd


def divert(nodes: list[str]) -> None:
    with open("/proc/sys/net/ipv4/ip_forward", "w") as switch:
        switch.write("1")
    ip(f"link set {DEVICE} up")
    ip(f"address add {VIA}/16 dev underlay")
    ip(f"route add default dev {DEVICE} table {TABLE}")
    for sender, target in permutations(nodes, 2):
        ip(f"rule add iif underlay to 10.99.0.{target} from 10.99.0.{sender} lookup {TABLE}")
        ip(f"-n node{sender} route add 10.99.0.{target}/32 via {VIA}")


def restore(nodes: list[str]) -> None:
    for sender, target in permutations(nodes, 2):
        ip(f"-n node{sender} route delete 10.99.0.{target}/32 via {VIA}")
        ip(f"rule delete iif underlay to 10.99.0.{target} from 10.99.0.{sender} lookup {TABLE}")
    ip(f"address delete {VIA}/16 dev underlay")


def relay(fd: int, chance: random.Random) -> tuple[int, int, int, int]:
    held: list[tuple[int, bytes]] = []
    number = lost = held_back = doubled = 0
    while True:
        ready, _, _ = select.select([fd, sys.stdin], [], [], 0.01)
        if sys.stdin in ready:
            return number, lost, held_back, doubled
        if fd in ready:
            packet = os.read(fd, 65536)
            number += 1
            lot = chance.randrange(100)
            if lot < LOST:
                lost += 1
                continue
            if lot < LOST + HELD:
                held_back += 1
                held.append((number + HELD_FOR, packet))
                continue
            os.write(fd, packet)
            if lot < LOST + HELD + DOUBLED:
                doubled += 1
                os.write(fd, packet)
        due = [packet for until, packet in held if until <= number or not ready]
        held = [(until, packet) for until, packet in held if until > number and ready]
        for packet in due:
            os.write(fd, packet)


def main() -> None:
    seed, *nodes = sys.argv[1:]
    fd = open_tun()
    divert(nodes)
    try:
        print("ready", flush=True)
        print(*relay(fd, random.Random(seed)))
    finally:
        restore(nodes)
        os.close(fd)


if __name__ == "__main__":
    main()
