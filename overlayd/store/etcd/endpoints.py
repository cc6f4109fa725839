"""What an operator may write as `--etcd-endpoints`, and how gRPC calls it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

from overlayd.core.network.addresses import IPAddress

_EXAMPLE = "write it like http://10.99.255.1:2379"
_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.(?!-)[A-Za-z0-9_-]{1,63})*\.?")


@dataclass(frozen=True, slots=True)
class EtcdEndpoint:
    """Where a member of etcd listens for clients, and whether with TLS."""

    host: IPAddress | str
    port: int
    tls: bool = False

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if isinstance(self.host, IPv6Address) else f"{self.host}:{self.port}"

    @property
    def target(self) -> str:
        """As gRPC names it: https://github.com/grpc/grpc/blob/master/doc/naming.md"""
        scheme = "dns:///" if isinstance(self.host, str) else f"ipv{self.host.version}:"
        return scheme + self.address

    def __str__(self) -> str:
        return f"https://{self.address}" if self.tls else self.address


def parse_endpoint(text: str) -> EtcdEndpoint:
    """Read `http://10.99.255.1:2379`; without a scheme it is http, the host may be a name or `[IPv6 address]`.

    Raises ValueError with the endpoint, what is wrong with it and what would be right.
    """
    scheme, mark, rest = text.strip().rpartition("://")
    scheme = scheme.lower()
    if mark and scheme not in ("http", "https"):
        raise ValueError(f"etcd endpoint {text!r}: the scheme {scheme!r} is neither http nor https; {_EXAMPLE}")
    try:
        url = urlsplit(f"//{rest}")
        port = url.port
    except ValueError as error:
        raise ValueError(f"etcd endpoint {text!r}: {error}; {_EXAMPLE}") from None
    if url.path.strip("/") or url.query or url.fragment or url.username is not None:
        raise ValueError(f"etcd endpoint {text!r}: holds more than a host and a port; {_EXAMPLE}")
    if not url.hostname:
        raise ValueError(f"etcd endpoint {text!r}: no host; {_EXAMPLE}")
    if not port:
        raise ValueError(f"etcd endpoint {text!r}: no port (etcd's own is 2379); {_EXAMPLE}")
    return EtcdEndpoint(_parse_host(text, url.hostname), port, tls=scheme == "https")


def _parse_host(text: str, host: str) -> IPAddress | str:
    try:
        return ip_address(host)
    except ValueError:
        # A name whose last label is all digits is a mistyped address (RFC 3696, section 2).
        if not _HOST_NAME.fullmatch(host) or host.rstrip(".").rpartition(".")[2].isdecimal():
            raise ValueError(
                f"etcd endpoint {text!r}: {host!r} is neither an address nor a host name; {_EXAMPLE}"
            ) from None
        return host
