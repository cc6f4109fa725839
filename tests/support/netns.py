"""Network namespaces for a test, removed when it ends, however it ends."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import pytest

_numbers = count(1)


def require_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces are made here")


@contextmanager
def netns(name: str = "node") -> Iterator[str]:
    """A fresh network namespace with its loopback up; yields its name, unique to this process."""
    require_root()
    full = f"test-{os.getpid()}-{next(_numbers)}-{name}"
    run("ip netns add", full)
    try:
        run(f"ip -n {full} link set lo up")
        yield full
    finally:
        run("ip netns delete", full)


@contextmanager
def node(address: str = "10.99.0.1/16") -> Iterator[str]:
    """A namespace with an underlay: `eth0` with an address, up; `wire`, the other end of it, stands there too."""
    with netns() as name:
        ip(name, "link add eth0 mtu 1500 type veth peer name wire")
        for link in ("eth0", "wire"):
            ip(name, f"link set {link} addrgenmode none")  # no fe80:: that comes up a second later
            ip(name, f"link set {link} up")
        ip(name, f"address add {address} dev eth0")
        yield name


@contextmanager
def two_nodes() -> Iterator[tuple[str, str]]:
    """Two namespaces joined by a veth pair, `eth0` in each: 10.99.0.1/16 and 10.99.0.2/16."""
    with netns("a") as a, netns("b") as b:
        ip(a, f"link add eth0 mtu 1500 type veth peer name eth0 mtu 1500 netns {b}")
        for number, name in enumerate((a, b), start=1):
            ip(name, "link set eth0 addrgenmode none")
            ip(name, "link set eth0 up")
            ip(name, f"address add 10.99.0.{number}/16 dev eth0")
        yield a, b


def ip(name: str, command: str) -> str:
    """`ip -n <namespace> <command>`; what it prints."""
    return run(f"ip -n {name} {command}")


def bridge(name: str, command: str) -> str:
    """`bridge -n <namespace> <command>`; what it prints."""
    return run(f"bridge -n {name} {command}")


def run(*command: str) -> str:
    words = [word for part in command for word in part.split()]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr.strip()}"
    return done.stdout
