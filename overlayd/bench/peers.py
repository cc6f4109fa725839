"""Writes leases of vxlan nodes that do not exist: `python -m overlayd.bench.peers COUNT ENDPOINT`

It runs in a lab, after its nodes have leased their subnets, and speaks JSON to etcd
(https://etcd.io/docs/v3.5/dev-guide/api_grpc_gateway/).  The leases are reservations: they do not expire.  Their
nodes are on the underlay, where nothing answers, and nothing is sent to them.
"""

from __future__ import annotations

import base64
import json
import sys
import urllib.request
from collections.abc import Collection, Iterator
from ipaddress import IPv4Network
from typing import Any

from overlayd.core.network.config import parse_config
from overlayd.lab.model import UNDERLAY

PREFIX = "/coreos.com/network/"
"""The daemons' default."""
AT_ONCE = 100
"""Keys of one transaction; etcd allows 128 unless told otherwise (--max-txn-ops)."""
FIRST_NODE = 256
"""Number of the first node that does not exist: the lab's own have numbers below."""
_PATIENCE = 60.0
"""Seconds for one answer of etcd."""


def compose_leases(config: bytes, taken: Collection[str], count: int) -> Iterator[tuple[str, str]]:
    """Compose flannel's records of leases, by name, in the first `count` subnets that are not taken."""
    span = parse_config(config).ranges[0]
    network = IPv4Network(str(span.network))
    node = FIRST_NODE
    for prefix in network.subnets(new_prefix=span.subnet_len):
        if node == FIRST_NODE + count:
            return
        name = f"subnets/{prefix.network_address}-{prefix.prefixlen}"
        if name not in taken and int(span.first) <= int(prefix.network_address) <= int(span.last):
            vtep = {"VNI": 1, "VtepMAC": f"02:00:00:01:{node >> 8:02x}:{node & 255:02x}"}
            lease = {"PublicIP": str(UNDERLAY[node]), "BackendType": "vxlan", "BackendData": vtep}
            yield name, json.dumps(lease)
            node += 1


def write(count: int, endpoint: str) -> None:
    config = _ask(endpoint, "range", {"key": _text(f"{PREFIX}config")})["kvs"][0]["value"]
    subnets = {"key": _text(f"{PREFIX}subnets/"), "range_end": _text(f"{PREFIX}subnets0"), "keys_only": True}
    found = _ask(endpoint, "range", subnets).get("kvs", ())
    taken = {base64.b64decode(entry["key"]).decode().removeprefix(PREFIX) for entry in found}
    leases = list(compose_leases(base64.b64decode(config), taken, count))
    puts = [{"request_put": {"key": _text(PREFIX + name), "value": _text(value)}} for name, value in leases]
    for begin in range(0, len(puts), AT_ONCE):
        _ask(endpoint, "txn", {"success": puts[begin : begin + AT_ONCE]})


def _ask(endpoint: str, method: str, question: dict[str, Any]) -> Any:
    request = urllib.request.Request(f"{endpoint}/v3/kv/{method}", json.dumps(question).encode())
    with urllib.request.urlopen(request, timeout=_PATIENCE) as answer:
        return json.load(answer)


def _text(words: str) -> str:
    return base64.b64encode(words.encode()).decode()


if __name__ == "__main__":
    write(int(sys.argv[1]), sys.argv[2])
