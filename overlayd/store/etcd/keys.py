"""Keys of etcd ↔ names of records: `/coreos.com/network/config` is `config` under the default prefix."""

from __future__ import annotations

from dataclasses import dataclass

from overlayd.core.store import SUBNETS


def parse_prefix(text: str) -> str:
    """The prefix without trailing slashes.  Raises ValueError where nothing is left: the whole of etcd is
    nobody's to claim."""
    prefix = text.strip().rstrip("/")
    if not prefix:
        raise ValueError(f"etcd prefix {text!r} is empty; write it like /coreos.com/network")
    return prefix


@dataclass(frozen=True, slots=True)
class Keyspace:
    """All keys below one prefix.  Other clusters and other programs live beside it."""

    prefix: str

    def key(self, name: str) -> bytes:
        return f"{self.prefix}/{name}".encode()

    def name(self, key: bytes) -> str:
        """The name of a key in here.  A byte that is not UTF-8 shows as `\\xff`: such a key is nobody's
        subnet, but it must be possible to name it in a problem."""
        return key[len(self.prefix.encode()) + 1 :].decode(errors="backslashreplace")

    @property
    def everything(self) -> tuple[bytes, bytes]:
        """First key and end of the range of all names."""
        return self.key(""), _after(self.key(""))

    @property
    def subnets(self) -> tuple[bytes, bytes]:
        """First key and end of the range of the leases."""
        return self.key(SUBNETS), _after(self.key(SUBNETS))


def _after(prefix: bytes) -> bytes:
    """The end of the range of all keys with this prefix; its last byte is a slash, so there is one above it."""
    return prefix[:-1] + bytes([prefix[-1] + 1])
