"""The store in etcd, API v3: flannel's keys under one prefix, over gRPC.

`open_etcd` is the door.  Behind it, each file has one reason to change: `schema` when etcd3 or protobuf do,
`endpoints` and `access` with what an operator may write, `certificates` with the files behind TLS, `session` with
how etcd knows its users, `keys` with the layout of keys, `connection` with gRPC, `failure` with how etcd says no,
`watch` and `client` with etcd's API.
"""

from __future__ import annotations

import os

# gRPC's core repeats every lost connection on stderr, unless this is set before grpc is first imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from overlayd.store.etcd.access import ANONYMOUS, Access, AccessError, Login, TlsFiles, make_login
from overlayd.store.etcd.client import EtcdStore, open_etcd
from overlayd.store.etcd.endpoints import EtcdEndpoint, parse_endpoint
from overlayd.store.etcd.keys import parse_prefix

__all__ = [
    "ANONYMOUS",
    "Access",
    "AccessError",
    "EtcdEndpoint",
    "EtcdStore",
    "Login",
    "TlsFiles",
    "make_login",
    "open_etcd",
    "parse_endpoint",
    "parse_prefix",
]
