"""Keys of etcd ↔ names of records: `/coreos.com/network/config` is `config` under the default prefix."""

from __future__ import annotations

from dataclasses import dataclass


def parse_prefix(text: str) -> str:
    """Parse the prefix without trailing slashes.  Raises ValueError where nothing is left: no one may claim
    the whole of etcd."""
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
        """Return the name of a key in here.  A byte that is not UTF-8 shows as `\\xff`: such a key is no
        subnet, but a problem must be able to name it."""
        return key[len(self.prefix.encode()) + 1 :].decode(errors="backslashreplace")

    @property
    def everything(self) -> tuple[bytes, bytes]:
        """Return the first key and the end of the range of all names."""
        return self.key(""), _after(self.key(""))

    def below(self, prefix: str) -> tuple[bytes, bytes]:
        """Return the first key and the end of the range of all names that begin with this prefix, which ends in a
        slash."""
        return self.key(prefix), _after(self.key(prefix))


def _after(prefix: bytes) -> bytes:
    """Return the end of the range of all keys with this prefix; its last byte is a slash, so there is one above
    it."""
    return prefix[:-1] + bytes([prefix[-1] + 1])
